#include <immintrin.h>

#include "engine/cpu/isa_kernels.h"

namespace tarn::engine {
namespace {

#include "engine/cpu/avx512_vector.h"
#include "engine/cpu/kernel_body.h"

}  // namespace

const IsaKernels& Avx512Kernels() {
  static constexpr IsaKernels kTable = {.kernels = {.gemm_f32 = GemmF32,
                                                    .gemm_bf16 = GemmBf16,
                                                    .gemm_bf16_dot = nullptr,
                                                    .attention = Attention,
                                                    .rms_norm = RmsNorm,
                                                    .swiglu = Swiglu,
                                                    .to_bf16 = ToBf16,
                                                    .from_bf16 = FromBf16},
                                        .spin = SpinFma,
                                        .flops_per_round = kChains * 16 * 2};
  return kTable;
}

}  // namespace tarn::engine
