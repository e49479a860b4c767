#pragma once

// The tables of each kernels_ISA.cc. Private to this folder: others ask KernelsFor().

#include "engine/cpu/kernels.h"

namespace tarn::engine {

struct IsaKernels {
  Kernels kernels;
  // Multiply-adds in registers, `rounds` times flops_per_round of them.
  float (*spin)(long rounds);
  double flops_per_round;
};

const IsaKernels& Avx2Kernels();
const IsaKernels& Avx512Kernels();
const IsaKernels& Avx512Bf16Kernels();

}  // namespace tarn::engine
