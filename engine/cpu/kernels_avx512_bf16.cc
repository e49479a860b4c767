#include <immintrin.h>

#include "engine/cpu/isa_kernels.h"

namespace tarn::engine {
namespace {

#include "engine/cpu/avx512_vector.h"
#include "engine/cpu/kernel_body.h"

struct DotWeights {
  static constexpr int kStep = 2;
  using X = uint16_t;
  template <int R, int C>
  static inline __attribute__((always_inline)) void Step(const uint16_t* x, size_t ldx,
                                                         const std::byte* w, size_t panel,
                                                         Vec (&acc)[R][C]) {
    __m512bh column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = (__m512bh)_mm512_loadu_si512(w + c * panel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int pair;
      __builtin_memcpy(&pair, x + r * ldx, sizeof(pair));
      const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], value, column[c]);
    }
  }
};

void GemmBf16Dot(const GemmArgs& args, int panel_begin, int panel_end) {
  Gemm<DotWeights>(args, panel_begin, panel_end, kPanel * 2 * sizeof(uint16_t));
}

float SpinDot(long rounds) {
  Chains chains(rounds);
  const __m512bh one = (__m512bh)_mm512_set1_epi16(0x3f80);
  for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) chains.acc[c] = _mm512_dpbf16_ps(chains.acc[c], one, one);
  }
  return chains.Sum();
}

}  // namespace

const IsaKernels& Avx512Bf16Kernels() {
  static constexpr IsaKernels kTable = {.kernels = {.gemm_f32 = GemmF32,
                                                    .gemm_bf16 = GemmBf16,
                                                    .gemm_bf16_dot = GemmBf16Dot,
                                                    .attention = Attention,
                                                    .rms_norm = RmsNorm,
                                                    .swiglu = Swiglu,
                                                    .to_bf16 = ToBf16,
                                                    .from_bf16 = FromBf16},
                                        .spin = SpinDot,
                                        .flops_per_round = kChains * 32 * 2};
  return kTable;
}

}  // namespace tarn::engine
