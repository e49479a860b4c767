#include "engine/cpu/kernels.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "engine/cpu/isa_kernels.h"

namespace tarn::engine {
namespace {

bool Supports(Isa isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

const IsaKernels& Table(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return Avx2Kernels();
    case Isa::kAvx512:
      return Avx512Kernels();
    case Isa::kAvx512Bf16:
      break;
  }
  return Avx512Bf16Kernels();
}

// Known CPUs issue BF16 dot products at 0.5, 1 or 2 times the FLOP/s of F32 (a Xeon of 2023: 0.5).
// The limit lies between the last two, so that noise cannot make two processes of one machine
// disagree: their KV would not be shared.
bool DotIsFaster() {
  double fma = 0;
  double dot = 0;
  for (int i = 0; i < 8; ++i) {
    fma = std::max(fma, PeakFlops(Isa::kAvx512, 20));
    dot = std::max(dot, PeakFlops(Isa::kAvx512Bf16, 20));
  }
  return dot > 1.4 * fma;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

size_t AttentionScratch(int head_dim) {
  const size_t width = (static_cast<size_t>(head_dim) + kPanel - 1) / kPanel * kPanel;
  return kMaxQueryRows * (2 * width + 16 + 1 + kKeyGrid) + 2 * kKeyGrid * width + 64;
}

absl::StatusOr<const Kernels*> KernelsFor(Isa isa) {
  if (Supports(isa)) return &Table(isa).kernels;
  return absl::FailedPreconditionError(
      absl::StrCat("this CPU has no ", IsaName(isa), "; the CPU executor needs AVX2 and FMA"));
}

absl::StatusOr<Isa> BestIsa() {
  if (Supports(Isa::kAvx512Bf16) && DotIsFaster()) return Isa::kAvx512Bf16;
  if (Supports(Isa::kAvx512)) return Isa::kAvx512;
  if (Supports(Isa::kAvx2)) return Isa::kAvx2;
  return absl::FailedPreconditionError("the CPU executor needs a CPU with AVX2 and FMA");
}

double PeakFlops(Isa isa, int rounds) {
  const IsaKernels& table = Table(isa);
  // A few microseconds.
  constexpr long kSpin = 1000;
  double best = 0;
  volatile float sink = 0;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    sink = sink + table.spin(kSpin);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, kSpin * table.flops_per_round / spent.count());
  }
  return best;
}

}  // namespace tarn::engine
