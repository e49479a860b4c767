// Included by one .cc per instruction set, which is compiled for it. No library code but xxHash's
// static functions: an inline function shared with other files could be linked in from here, and
// then runs on machines without the instructions.

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tarn::internal {

static unsigned long long ChecksumPieces(const unsigned char* data, unsigned long long size) {
  constexpr unsigned long long kPiece = 4096;
  constexpr int kDigests = 64;  // hashed at a time, for the stream's calls cost more than its bytes
  unsigned long long digests[kDigests];
  int count = 0;
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (unsigned long long piece = 0; piece * kPiece < size; ++piece) {
    const unsigned long long left = size - piece * kPiece;
    digests[count++] = XXH3_64bits_withSeed(data + piece * kPiece, left < kPiece ? left : kPiece,
                                            static_cast<XXH64_hash_t>(piece));
    if (count == kDigests) {
      XXH3_64bits_update(&state, digests, sizeof(digests));
      count = 0;
    }
  }
  XXH3_64bits_update(&state, digests, static_cast<size_t>(count) * sizeof(digests[0]));
  return XXH3_64bits_digest(&state);
}

}  // namespace tarn::internal
