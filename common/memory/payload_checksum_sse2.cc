#include "common/memory/payload_checksum.h"
#include "common/memory/payload_checksum_impl.h"

namespace tarn::internal {

unsigned long long ChecksumSse2(const unsigned char* data, unsigned long long size) {
  return ChecksumPieces(data, size);
}

}  // namespace tarn::internal
