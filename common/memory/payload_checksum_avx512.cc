#include "common/memory/payload_checksum.h"
#include "common/memory/payload_checksum_impl.h"

namespace tarn::internal {

unsigned long long ChecksumAvx512(const unsigned char* data, unsigned long long size) {
  return ChecksumPieces(data, size);
}

unsigned long long HashPieceAvx512(const unsigned char* data, unsigned long long size,
                                   unsigned long long piece) {
  return HashPiece(data, size, piece);
}

unsigned long long CopyPieceAvx512(unsigned char* to, const unsigned char* from,
                                   unsigned long long piece) {
  return CopyPiece(to, from, piece);
}

}  // namespace tarn::internal
