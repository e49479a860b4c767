// Kernels over the 16-lane vector of one instruction set. Not a header of its own: each
// kernels_ISA.cc defines its vector in an unnamed namespace and then includes this inside it, so
// that no function compiled for one instruction set can be linked into code for another. For the
// same reason nothing from the standard library is called here.
//
// The vector (see avx512_vector.h): Vec, Zero, Set, Load, Store, Fma, Add, Sub, Mul, Div, Max,
// LoadBf16, StoreBf16, PairEven, PairOdd, Round, TimesPowerOfTwo, ZeroBelow, Transpose16,
// and kTall/kWide, the shape of register tiles.

inline int Min(int a, int b) { return a < b ? a : b; }
inline int RoundUp(int a, int b) { return (a + b - 1) / b * b; }

// ---- GEMM
// ----------------------------------------------------------------------------------------

// Weights as one tile sees them: panel p's row k is at base + p * panel + k * row (bytes).
struct Weights {
  const std::byte* base;
  size_t panel;
  size_t row;
};

struct F32Weights {
  static constexpr int kStep = 1;
  using X = float;
  template <int R, int C>
  static inline __attribute__((always_inline)) void Step(const float* x, size_t ldx,
                                                         const std::byte* w, size_t panel,
                                                         Vec (&acc)[R][C]) {
    Vec column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = Load(reinterpret_cast<const float*>(w + c * panel));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec value = Set(x[r * ldx]);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = Fma(value, column[c], acc[r][c]);
    }
  }
};

struct Bf16Weights {
  static constexpr int kStep = 2;
  using X = float;
  template <int R, int C>
  static inline __attribute__((always_inline)) void Step(const float* x, size_t ldx,
                                                         const std::byte* w, size_t panel,
                                                         Vec (&acc)[R][C]) {
    Vec column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = PairEven(w + c * panel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec value = Set(x[r * ldx]);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = Fma(value, column[c], acc[r][c]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = PairOdd(w + c * panel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec value = Set(x[r * ldx + 1]);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = Fma(value, column[c], acc[r][c]);
    }
  }
};

// R rows by C panels, k_count steps of k. Starts at y or at zero.
template <typename W, int R, int C>
void Tile(const typename W::X* x, size_t ldx, const Weights& w, int k_count, float* y, size_t ldy,
          bool accumulate) {
  Vec acc[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = accumulate ? Load(y + r * ldy + c * kPanel) : Zero();
  }
  const std::byte* row = w.base;
  for (int k = 0; k < k_count; k += W::kStep) {
    W::Step(x + k, ldx, row, w.panel, acc);
    row += w.row;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) Store(y + r * ldy + c * kPanel, acc[r][c]);
  }
}

template <typename W, int C>
void TileOfRows(int rows, const typename W::X* x, size_t ldx, const Weights& w, int k_count,
                float* y, size_t ldy, bool accumulate) {
  // clang-format off
  switch (rows) {
#define TARN_ROWS(R) case R: if constexpr (R * C <= kMaxTile) Tile<W, R, C>(x, ldx, w, k_count, y, ldy, accumulate); return;
    TARN_ROWS(1) TARN_ROWS(2) TARN_ROWS(3) TARN_ROWS(4) TARN_ROWS(5) TARN_ROWS(6)
    TARN_ROWS(7) TARN_ROWS(8) TARN_ROWS(9) TARN_ROWS(10) TARN_ROWS(11) TARN_ROWS(12)
#undef TARN_ROWS
  }
  // clang-format on
}

// All rows against C panels; tiles of nearly equal height, since a tile of one row is slow.
template <typename W, int C>
void Rows(int m, const typename W::X* x, size_t ldx, const Weights& w, int k_count, float* y,
          size_t ldy, bool accumulate) {
  constexpr int kHeight = kMaxTile / C < 12 ? kMaxTile / C : 12;
  const int tiles = (m + kHeight - 1) / kHeight;
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int rows = (m - row + tiles - i - 1) / (tiles - i);
    TileOfRows<W, C>(rows, x + row * ldx, ldx, w, k_count, y + row * ldy, ldy, accumulate);
    row += rows;
  }
}

template <typename W>
void Panels(int panels, int m, const typename W::X* x, size_t ldx, const Weights& w, int k_count,
            float* y, size_t ldy, bool accumulate) {
  // Few rows: more panels at once, to have enough independent chains.
  const int wide = m * 8 <= kMaxTile ? 8 : m * 4 <= kMaxTile ? 4 : kWide;
  int p = 0;
  const auto run = [&]<int C>() {
    for (; p + C <= panels; p += C) {
      const Weights shifted = {w.base + p * w.panel, w.panel, w.row};
      Rows<W, C>(m, x, ldx, shifted, k_count, y + p * kPanel, ldy, accumulate);
    }
  };
  if constexpr (kMaxTile >= 8) {
    if (wide >= 8) run.template operator()<8>();
  }
  if constexpr (kMaxTile >= 4) {
    if (wide >= 4) run.template operator()<4>();
  }
  if constexpr (kWide >= 2) run.template operator()<2>();
  run.template operator()<1>();
}

// Rows and steps of k in one pass. Two F32 panels of so many steps are 32 KiB, which stay in the L1
// while the rows go by; the rows are so few that their pages stay in the first-level TLB.
constexpr int kBlockOfK = 256;
constexpr int kBlockOfRows = 72;

template <typename W>
void Gemm(const GemmArgs& args, int panel_begin, int panel_end, size_t step_bytes) {
  const int block = args.m <= 16 ? args.k : kBlockOfK;
  for (int row = 0; row < args.m; row += kBlockOfRows) {
    const auto* x = static_cast<const typename W::X*>(args.x) + row * args.ldx;
    float* y = args.y + row * args.ldy + panel_begin * kPanel;
    for (int k = 0; k < args.k; k += block) {
      const Weights w = {args.w + panel_begin * args.panel_bytes + k / W::kStep * step_bytes,
                         args.panel_bytes, step_bytes};
      Panels<W>(panel_end - panel_begin, Min(kBlockOfRows, args.m - row), x + k, args.ldx, w,
                Min(block, args.k - k), y, args.ldy, args.accumulate || k > 0);
    }
  }
}

void GemmF32(const GemmArgs& args, int panel_begin, int panel_end) {
  Gemm<F32Weights>(args, panel_begin, panel_end, kPanel * sizeof(float));
}

void GemmBf16(const GemmArgs& args, int panel_begin, int panel_end) {
  Gemm<Bf16Weights>(args, panel_begin, panel_end, kPanel * 2 * sizeof(uint16_t));
}

// ---- Rows
// ----------------------------------------------------------------------------------------

inline float SumLanes(Vec v) {
  alignas(64) float lane[16];
  Store(lane, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

inline Vec LoadTail(const float* x, int n) {
  alignas(64) float lane[16] = {};
  for (int i = 0; i < n; ++i) lane[i] = x[i];
  return Load(lane);
}

inline void StoreTail(float* x, Vec v, int n) {
  alignas(64) float lane[16];
  Store(lane, v);
  for (int i = 0; i < n; ++i) x[i] = lane[i];
}

void RmsNorm(const float* x, const float* weight, float eps, int n, float* out) {
  Vec sum = Zero();
  const int full = n / 16 * 16;
  for (int i = 0; i < full; i += 16) sum = Fma(Load(x + i), Load(x + i), sum);
  const Vec tail = LoadTail(x + full, n - full);
  sum = Fma(tail, tail, sum);
  const float factor = 1.0f / __builtin_sqrtf(SumLanes(sum) / static_cast<float>(n) + eps);
  for (int i = 0; i < full; i += 16) {
    Store(out + i, Mul(Mul(Load(x + i), Set(factor)), Load(weight + i)));
  }
  const Vec last = Mul(Mul(tail, Set(factor)), LoadTail(weight + full, n - full));
  StoreTail(out + full, last, n - full);
}

// exp(x) to about 1e-7 relative, 0 below -87: x = n ln 2 + f, |f| <= ln 2 / 2, and the Taylor
// series of exp(f) to f^7, whose remainder is under 6e-9. x is at most 88.
inline Vec Exp(Vec x) {
  const Vec bounded = Max(x, Set(-87.0f));
  const Vec n = Round(Mul(bounded, Set(1.44269504f)));
  // ln 2 in two parts: n times the first is exact.
  Vec f = Fma(n, Set(-0.693359375f), bounded);
  f = Fma(n, Set(2.12194440e-4f), f);
  Vec series = Set(1.0f / 5040);
  series = Fma(series, f, Set(1.0f / 720));
  series = Fma(series, f, Set(1.0f / 120));
  series = Fma(series, f, Set(1.0f / 24));
  series = Fma(series, f, Set(1.0f / 6));
  series = Fma(series, f, Set(0.5f));
  series = Fma(series, f, Set(1.0f));
  series = Fma(series, f, Set(1.0f));
  return ZeroBelow(x, Set(-87.0f), TimesPowerOfTwo(series, n));
}

void Swiglu(float* gate, const float* up, int n) {
  for (int i = 0; i < n; i += 16) {
    const bool tail = n - i < 16;
    const Vec g = tail ? LoadTail(gate + i, n - i) : Load(gate + i);
    const Vec u = tail ? LoadTail(up + i, n - i) : Load(up + i);
    // exp(-g) overflows no float: -g is held at 87.
    const Vec e = Exp(Sub(Zero(), Max(g, Set(-87.0f))));
    const Vec y = Mul(Div(g, Add(Set(1.0f), e)), u);
    if (tail) {
      StoreTail(gate + i, y, n - i);
    } else {
      Store(gate + i, y);
    }
  }
}

void ToBf16(const float* x, int n, uint16_t* out) {
  const int full = n / 16 * 16;
  for (int i = 0; i < full; i += 16) StoreBf16(out + i, Load(x + i));
  if (full == n) return;
  uint16_t last[16];
  StoreBf16(last, LoadTail(x + full, n - full));
  for (int i = full; i < n; ++i) out[i] = last[i - full];
}

void FromBf16(const uint16_t* x, int n, float* out) {
  const int full = n / 16 * 16;
  for (int i = 0; i < full; i += 16) Store(out + i, LoadBf16(x + i));
  for (int i = full; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    __builtin_memcpy(out + i, &bits, sizeof(bits));
  }
}

// ---- Attention
// -----------------------------------------------------------------------------------

// Where one attention tile keeps its intermediate values. Rows are (token, head of the group).
struct AttentionState {
  int rows;
  int width;      // head_dim, padded
  float* q;       // [rows][width], scaled
  float* out;     // [rows][width], not yet divided by the sum
  float* sum;     // [rows][16]: lanes of the softmax' denominator
  float* top;     // [rows]: largest score so far
  float* scores;  // [rows][kKeyGrid]
  float* keys;    // two panels of the grid's keys, transposed
  float* values;  // [kKeyGrid][width]
};

AttentionState MakeState(const AttentionArgs& a) {
  AttentionState s;
  s.rows = a.tokens * a.group;
  s.width = RoundUp(a.head_dim, kPanel);
  float* next = a.scratch;
  const auto take = [&next](int count) {
    float* taken = next;
    next += RoundUp(count, 16);
    return taken;
  };
  s.q = take(kMaxQueryRows * s.width);
  s.out = take(kMaxQueryRows * s.width);
  s.sum = take(kMaxQueryRows * 16);
  s.top = take(kMaxQueryRows);
  s.scores = take(kMaxQueryRows * kKeyGrid);
  s.keys = take(kKeyGrid * s.width);
  s.values = take(kKeyGrid * s.width);
  return s;
}

void StartRows(const AttentionArgs& a, const AttentionState& s) {
  for (int row = 0; row < s.rows; ++row) {
    const float* from = a.q + row / a.group * a.ldq + row % a.group * a.head_dim;
    float* q = s.q + row * s.width;
    for (int d = 0; d < a.head_dim; ++d) q[d] = from[d] * a.scale;
    for (int d = a.head_dim; d < s.width; ++d) q[d] = 0;
    for (int d = 0; d < s.width; d += 16) Store(s.out + row * s.width + d, Zero());
    Store(s.sum + row * 16, Zero());
    s.top[row] = -__builtin_inff();
  }
}

// 16 rows of `words` 32-bit words to [word][16]. Rows from `count` on are taken as zero.
void TransposeRows(const std::byte* from, size_t row_bytes, int words, int count, uint32_t* to) {
  int word = 0;
  for (; word + 16 <= words; word += 16) {
    Transpose16(from + word * 4, row_bytes, count, to + word * 16);
  }
  for (; word < words; ++word) {
    for (int row = 0; row < 16; ++row) {
      uint32_t value = 0;
      if (row < count) __builtin_memcpy(&value, from + row * row_bytes + word * 4, 4);
      to[word * 16 + row] = value;
    }
  }
}

// Scores of `count` keys for all rows. A BF16 key is head_dim / 2 words of two elements, so that
// its transpose is the pair format of packed weights.
void Scores(const AttentionArgs& a, const AttentionState& s, const std::byte* keys, int count) {
  const bool bf16 = a.type == KvType::kBf16;
  const int words = bf16 ? a.head_dim / 2 : a.head_dim;
  const size_t row_bytes = static_cast<size_t>(words) * 4;
  const int panels = count > kPanel ? 2 : 1;
  const size_t panel_words = static_cast<size_t>(words) * kPanel;
  auto* transposed = reinterpret_cast<uint32_t*>(s.keys);
  for (int p = 0; p < panels; ++p) {
    TransposeRows(keys + p * kPanel * row_bytes, row_bytes, words, Min(count - p * kPanel, kPanel),
                  transposed + p * panel_words);
  }
  const Weights w = {reinterpret_cast<const std::byte*>(transposed), panel_words * 4, kPanel * 4};
  const auto run = bf16 ? Panels<Bf16Weights> : Panels<F32Weights>;
  run(panels, s.rows, s.q, s.width, w, a.head_dim, s.scores, kKeyGrid, false);
}

inline float MaxLanes(Vec v) {
  alignas(64) float lane[16];
  Store(lane, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  }
  return lane[0];
}

// 0 for the first kKeyGrid entries, then -inf: added to scores, it hides keys after the query.
struct CausalMask {
  float bias[2 * kKeyGrid];
  constexpr CausalMask() : bias() {
    for (int i = kKeyGrid; i < 2 * kKeyGrid; ++i) bias[i] = -__builtin_inff();
  }
};
constexpr CausalMask kMask;

// Turns one row's scores into weights, `seen` of whose keys the query may see. Rescales what the
// row has so far where the maximum grows (Milakov, Gimelshein: "Online normalizer calculation for
// softmax", 2018).
void Softmax(const AttentionState& s, int row, int seen) {
  float* scores = s.scores + row * kKeyGrid;
  const float* mask = kMask.bias + kKeyGrid - (seen < 0 ? 0 : Min(seen, kKeyGrid));
  const Vec low = Add(Load(scores), Load(mask));
  const Vec high = Add(Load(scores + 16), Load(mask + 16));
  const float block_top = MaxLanes(Max(low, high));
  float* out = s.out + row * s.width;
  float* sum = s.sum + row * 16;
  if (block_top > s.top[row]) {
    const Vec shrink = Exp(Set(s.top[row] - block_top));
    for (int d = 0; d < s.width; d += 16) Store(out + d, Mul(Load(out + d), shrink));
    Store(sum, Mul(Load(sum), shrink));
    s.top[row] = block_top;
  }
  const Vec top = Set(s.top[row]);
  const Vec low_weight = Exp(Sub(low, top));
  const Vec high_weight = Exp(Sub(high, top));
  Store(scores, low_weight);
  Store(scores + 16, high_weight);
  Store(sum, Add(Load(sum), Add(low_weight, high_weight)));
}

void AddValues(const AttentionArgs& a, const AttentionState& s, const std::byte* values,
               int count) {
  for (int key = 0; key < count; ++key) {
    float* to = s.values + key * s.width;
    if (a.type == KvType::kBf16) {
      FromBf16(reinterpret_cast<const uint16_t*>(values) + key * a.head_dim, a.head_dim, to);
    } else {
      __builtin_memcpy(to, values + key * a.head_dim * sizeof(float), a.head_dim * sizeof(float));
    }
    for (int d = a.head_dim; d < s.width; ++d) to[d] = 0;
  }
  const Weights w = {reinterpret_cast<const std::byte*>(s.values), kPanel * sizeof(float),
                     s.width * sizeof(float)};
  Panels<F32Weights>(s.width / kPanel, s.rows, s.scores, kKeyGrid, w, count, s.out, s.width, true);
}

void FinishRows(const AttentionArgs& a, const AttentionState& s) {
  for (int row = 0; row < s.rows; ++row) {
    float* to = a.out + row / a.group * a.ldo + row % a.group * a.head_dim;
    const float inverse = 1.0f / SumLanes(Load(s.sum + row * 16));
    const float* from = s.out + row * s.width;
    for (int d = 0; d < a.head_dim; ++d) to[d] = from[d] * inverse;
  }
}

void Attention(const AttentionArgs& a) {
  const AttentionState s = MakeState(a);
  StartRows(a, s);
  const int keys = a.position + a.tokens;
  const int grid = Min(kKeyGrid, a.block_tokens);
  const size_t row_bytes = static_cast<size_t>(a.head_dim) * (a.type == KvType::kBf16 ? 2 : 4);
  // With blocks of 16 tokens the upper half of a row's scores is hidden, but must be finite.
  for (int i = 0; i < s.rows * kKeyGrid; ++i) s.scores[i] = 0;
  for (int first = 0; first < keys; first += grid) {
    const std::byte* payload = a.payloads[first / a.block_tokens];
    const size_t offset = first % a.block_tokens * row_bytes;
    const int count = Min(grid, keys - first);
    Scores(a, s, payload + a.k_offset + offset, count);
    for (int row = 0; row < s.rows; ++row) {
      Softmax(s, row, Min(count, a.position + row / a.group + 1 - first));
    }
    AddValues(a, s, payload + a.v_offset + offset, count);
  }
  FinishRows(a, s);
}

// ---- Peak
// ----------------------------------------------------------------------------------------

// Independent chains of multiply-adds: enough to hide their latency, few enough for the registers.
constexpr int kChains = kMaxTile >= 24 ? 12 : 5;

// Different values, unknown to the compiler: it would fold equal chains into one.
struct Chains {
  explicit Chains(long rounds) {
    alignas(64) float lane[16];
    for (int c = 0; c < kChains; ++c) {
      for (int i = 0; i < 16; ++i) lane[i] = static_cast<float>(rounds % 7 + c * 16 + i);
      acc[c] = Load(lane);
    }
  }
  float Sum() const {
    Vec total = Zero();
    for (int c = 0; c < kChains; ++c) total = Add(total, acc[c]);
    return SumLanes(total);
  }
  Vec acc[kChains];
};

// The result keeps the compiler from dropping the work.
[[maybe_unused]] float SpinFma(long rounds) {
  Chains chains(rounds);
  const Vec a = Set(1e-3f);
  for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) chains.acc[c] = Fma(a, a, chains.acc[c]);
  }
  return chains.Sum();
}
