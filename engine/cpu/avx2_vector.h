// The 16-lane vector on AVX2 and FMA, as two registers. Included by kernels_avx2.cc inside an
// unnamed namespace; see kernel_body.h.

struct Vec {
  __m256 low;
  __m256 high;
};
// 6 rows by one panel: 12 of 16 registers.
constexpr int kMaxTile = 6;
constexpr int kWide = 1;

inline Vec Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Vec Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Vec Add(Vec a, Vec b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Vec Sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Vec Mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Vec Div(Vec a, Vec b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Vec Max(Vec a, Vec b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

inline Vec Round(Vec v) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.low, kMode), _mm256_round_ps(v.high, kMode)};
}
inline __m256 TimesPowerOfTwo8(__m256 v, __m256 n) {
  const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), shift));
}
inline Vec TimesPowerOfTwo(Vec v, Vec n) {
  return {TimesPowerOfTwo8(v.low, n.low), TimesPowerOfTwo8(v.high, n.high)};
}
inline Vec ZeroBelow(Vec x, Vec limit, Vec v) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.low, limit.low, _CMP_NLT_UQ), v.low),
          _mm256_and_ps(_mm256_cmp_ps(x.high, limit.high, _CMP_NLT_UQ), v.high)};
}

inline __m256 LoadBf16x8(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline Vec LoadBf16(const uint16_t* p) { return {LoadBf16x8(p), LoadBf16x8(p + 8)}; }
// Rounded bits in the low half of each word.
inline __m256i RoundBf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i rounded = _mm256_blendv_epi8(_mm256_add_epi32(bits, bias), quiet, nan);
  return _mm256_srli_epi32(rounded, 16);
}
inline void StoreBf16(uint16_t* p, Vec v) {
  // Packing works within 128-bit lanes: the permutation undoes their interleaving.
  const __m256i packed = _mm256_packus_epi32(RoundBf16(v.low), RoundBf16(v.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline __m256i LoadWords(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Vec PairEven(const std::byte* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(LoadWords(p), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(LoadWords(p + 32), 16))};
}
inline Vec PairOdd(const std::byte* p) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm256_castsi256_ps(_mm256_and_si256(LoadWords(p), mask)),
          _mm256_castsi256_ps(_mm256_and_si256(LoadWords(p + 32), mask))};
}

// 8 words of each of 8 rows to to[word * 16 + row].
inline void Transpose8(const std::byte* from, size_t row_bytes, int count, uint32_t* to) {
  __m256i r[8], a[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    r[i] = i < count ? LoadWords(from + i * row_bytes) : _mm256_setzero_si256();
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    a[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    r[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    r[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m256i first = _mm256_permute2x128_si256(r[c], r[4 + c], 0x20);
    const __m256i second = _mm256_permute2x128_si256(r[c], r[4 + c], 0x31);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c * 16), first);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (4 + c) * 16), second);
  }
}

inline void Transpose16(const std::byte* from, size_t row_bytes, int count, uint32_t* to) {
  for (int row = 0; row < 16; row += 8) {
    for (int word = 0; word < 16; word += 8) {
      Transpose8(from + row * row_bytes + word * 4, row_bytes, count - row, to + word * 16 + row);
    }
  }
}
