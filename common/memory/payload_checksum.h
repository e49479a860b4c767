#pragma once

// PayloadChecksum (block_header.h) for one instruction set each: equal results, different speed.
// The caller has checked that the machine has the instructions. Plain types: see
// payload_checksum_impl.h.

namespace tarn::internal {

unsigned long long ChecksumSse2(const unsigned char* data, unsigned long long size);
unsigned long long ChecksumAvx2(const unsigned char* data, unsigned long long size);
unsigned long long ChecksumAvx512(const unsigned char* data, unsigned long long size);

}  // namespace tarn::internal
