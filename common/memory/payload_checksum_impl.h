// Included by one .cc per instruction set, which is compiled for it. No library code but xxHash's
// static functions: an inline function shared with other files could be linked in from here, and
// then runs on machines without the instructions.

#include <immintrin.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tarn::internal {

#if XXH_VECTOR == XXH_AVX512
using Lanes = __m512i;
static inline Lanes LoadLanes(const unsigned char* p) { return _mm512_loadu_si512(p); }
static inline void StreamLanes(unsigned char* p, Lanes v) {
  _mm512_stream_si512(reinterpret_cast<Lanes*>(p), v);
}
#elif XXH_VECTOR == XXH_AVX2
using Lanes = __m256i;
static inline Lanes LoadLanes(const unsigned char* p) {
  return _mm256_loadu_si256(reinterpret_cast<const Lanes*>(p));
}
static inline void StreamLanes(unsigned char* p, Lanes v) {
  _mm256_stream_si256(reinterpret_cast<Lanes*>(p), v);
}
#else
using Lanes = __m128i;
static inline Lanes LoadLanes(const unsigned char* p) {
  return _mm_loadu_si128(reinterpret_cast<const Lanes*>(p));
}
static inline void StreamLanes(unsigned char* p, Lanes v) {
  _mm_stream_si128(reinterpret_cast<Lanes*>(p), v);
}
#endif

// One stripe of XXH3: read once, into registers, so that what is stored is what is hashed.
static inline void CopyStripe(xxh_u64* accumulators, unsigned char* to, const unsigned char* from,
                              const xxh_u8* secret) {
  constexpr int kLanes = XXH_STRIPE_LEN / sizeof(Lanes);
  constexpr int kAhead = 1024;  // measured; past the end of a region it does no harm
  Lanes stripe[kLanes];
  _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead, _MM_HINT_T0);
  for (int i = 0; i < kLanes; ++i) {
    stripe[i] = LoadLanes(from + i * sizeof(Lanes));
    StreamLanes(to + i * sizeof(Lanes), stripe[i]);
  }
  XXH3_accumulate_512(accumulators, stripe, secret);
}

// XXH3_64bits_withSeed of 4,096 bytes as xxHash computes it (XXH3_hashLong_64b_internal), with a
// store in its innermost loop: three blocks of 16 stripes, 15 stripes, and a last one.
static unsigned long long CopyPiece(unsigned char* to, const unsigned char* from,
                                    unsigned long long piece) {
  constexpr int kSize = 4096;
  constexpr int kStripes = kSize / XXH_STRIPE_LEN;
  constexpr int kBlock = (XXH_SECRET_DEFAULT_SIZE - XXH_STRIPE_LEN) / XXH_SECRET_CONSUME_RATE;
  XXH_ALIGN(XXH_SEC_ALIGN) xxh_u8 secret[XXH_SECRET_DEFAULT_SIZE];
  XXH_ALIGN(XXH_ACC_ALIGN) xxh_u64 accumulators[XXH_ACC_NB] = XXH3_INIT_ACC;
  const xxh_u8* const secret_end = secret + XXH_SECRET_DEFAULT_SIZE - XXH_STRIPE_LEN;
  XXH3_initCustomSecret(secret, piece);
  for (int i = 0; i < kStripes - 1; ++i) {
    const int offset = i * XXH_STRIPE_LEN;
    CopyStripe(accumulators, to + offset, from + offset,
               secret + i % kBlock * XXH_SECRET_CONSUME_RATE);
    if (i % kBlock == kBlock - 1) XXH3_scrambleAcc(accumulators, secret_end);
  }
  CopyStripe(accumulators, to + kSize - XXH_STRIPE_LEN, from + kSize - XXH_STRIPE_LEN,
             secret_end - XXH_SECRET_LASTACC_START);
  return XXH3_mergeAccs(accumulators, secret + XXH_SECRET_MERGEACCS_START, kSize * XXH_PRIME64_1);
}

static unsigned long long HashPiece(const unsigned char* data, unsigned long long size,
                                    unsigned long long piece) {
  return XXH3_64bits_withSeed(data, size, static_cast<XXH64_hash_t>(piece));
}

static unsigned long long ChecksumPieces(const unsigned char* data, unsigned long long size) {
  constexpr unsigned long long kPiece = 4096;
  constexpr int kDigests = 64;  // hashed at a time, for the stream's calls cost more than its bytes
  unsigned long long digests[kDigests];
  int count = 0;
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (unsigned long long piece = 0; piece * kPiece < size; ++piece) {
    const unsigned long long left = size - piece * kPiece;
    digests[count++] = HashPiece(data + piece * kPiece, left < kPiece ? left : kPiece, piece);
    if (count == kDigests) {
      XXH3_64bits_update(&state, digests, sizeof(digests));
      count = 0;
    }
  }
  XXH3_64bits_update(&state, digests, static_cast<size_t>(count) * sizeof(digests[0]));
  return XXH3_64bits_digest(&state);
}

}  // namespace tarn::internal
