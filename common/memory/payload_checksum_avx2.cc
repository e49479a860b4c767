#include "common/memory/payload_checksum.h"
#include "common/memory/payload_checksum_impl.h"

namespace tarn::internal {

unsigned long long ChecksumAvx2(const unsigned char* data, unsigned long long size) {
  return ChecksumPieces(data, size);
}

unsigned long long HashPieceAvx2(const unsigned char* data, unsigned long long size,
                                 unsigned long long piece) {
  return HashPiece(data, size, piece);
}

unsigned long long CopyPieceAvx2(unsigned char* to, const unsigned char* from,
                                 unsigned long long piece) {
  return CopyPiece(to, from, piece);
}

}  // namespace tarn::internal
