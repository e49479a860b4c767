#pragma once

// PayloadChecksum (block_header.h) for one instruction set each: equal results, different speed.
// The caller has checked that the machine has the instructions. Plain types: see
// payload_checksum_impl.h.

namespace tarn::internal {

constexpr unsigned long long kChecksumPiece = 4096;

unsigned long long ChecksumSse2(const unsigned char* data, unsigned long long size);
unsigned long long ChecksumAvx2(const unsigned char* data, unsigned long long size);
unsigned long long ChecksumAvx512(const unsigned char* data, unsigned long long size);

// The digest of piece number `piece`; at most kChecksumPiece bytes.
unsigned long long HashPieceSse2(const unsigned char* data, unsigned long long size,
                                 unsigned long long piece);
unsigned long long HashPieceAvx2(const unsigned char* data, unsigned long long size,
                                 unsigned long long piece);
unsigned long long HashPieceAvx512(const unsigned char* data, unsigned long long size,
                                   unsigned long long piece);

// Copies a whole piece to `to` (aligned to 64), past the caches, and returns the digest of what it
// wrote, also if `from` changes meanwhile. Stores are weakly ordered: a fence must follow before
// another thread reads them.
unsigned long long CopyPieceSse2(unsigned char* to, const unsigned char* from,
                                 unsigned long long piece);
unsigned long long CopyPieceAvx2(unsigned char* to, const unsigned char* from,
                                 unsigned long long piece);
unsigned long long CopyPieceAvx512(unsigned char* to, const unsigned char* from,
                                   unsigned long long piece);

}  // namespace tarn::internal
