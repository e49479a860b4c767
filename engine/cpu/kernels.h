#pragma once

// The arithmetic of a transformer on one core, for several instruction sets behind one table.
//
// Batch invariance (I1) is kept by construction: one output element is one chain of fused
// multiply-adds over k in order, whatever tile computes it, so register tiles, cache blocks and
// thread splits are free to vary. Reductions over a row use 16 lanes and one tree. Vectors are 16
// lanes wide on every instruction set, hence AVX2 and AVX-512 give the same bits; the BF16 dot
// product rounds activations and differs.
//
// Plain functions on raw memory: the caller owns everything. Thread-safe where outputs are
// disjoint. `x`, `y` rows are floats unless said otherwise; strides count elements.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"

namespace tarn::engine {

enum class Isa : uint8_t { kAvx2, kAvx512, kAvx512Bf16 };
const char* IsaName(Isa isa);  // "avx512_bf16"

// Columns of a packed panel; row buffers are padded to it.
inline constexpr int kPanel = 16;
// Keys that attention folds in at once: the grid of the online softmax.
inline constexpr int kKeyGrid = 32;

// y[m][n] (+)= x[m][k] * w[n][k]^T for columns of the panels [panel_begin, panel_end).
// Panels are kPanel columns: F32 as [k][16], BF16 as [k / 2][16][2]. k is even; x and w are padded
// with zeros. y holds all columns, so panel p writes y[.][16 p ...].
struct GemmArgs {
  const void* x = nullptr;  // [m][ldx]: float, or bfloat16 for the dot product
  size_t ldx = 0;
  int m = 0;
  const std::byte* w = nullptr;
  size_t panel_bytes = 0;
  int k = 0;
  float* y = nullptr;  // [m][ldy]
  size_t ldy = 0;
  bool accumulate = false;  // adds to y: the chain starts at y's value
};

// A tile of queries against all keys at or before each.
struct AttentionArgs {
  const float* q = nullptr;  // [tokens][ldq], this KV head's `group` query heads of head_dim each
  float* out = nullptr;      // [tokens][ldo], likewise
  size_t ldq = 0;
  size_t ldo = 0;
  int tokens = 0;
  int position = 0;  // of the first
  int group = 0;     // tokens * group <= kMaxQueryRows
  int head_dim = 0;  // even
  float scale = 0;   // of q
  KvType type = KvType::kF32;
  int block_tokens = 0;
  const std::byte* const* payloads = nullptr;  // of the sequence's blocks
  size_t k_offset = 0;                         // of the tiles in a payload
  size_t v_offset = 0;
  float* scratch = nullptr;  // AttentionScratch(head_dim) floats, 64-byte aligned
};
inline constexpr int kMaxQueryRows = 96;
size_t AttentionScratch(int head_dim);

struct Kernels {
  void (*gemm_f32)(const GemmArgs& args, int panel_begin, int panel_end);
  void (*gemm_bf16)(const GemmArgs& args, int panel_begin, int panel_end);      // widens w
  void (*gemm_bf16_dot)(const GemmArgs& args, int panel_begin, int panel_end);  // null: none
  void (*attention)(const AttentionArgs& args);
  // out[n] = x[n] / rms(x) * weight[n]. In place is fine.
  void (*rms_norm)(const float* x, const float* weight, float eps, int n, float* out);
  // gate[n] = silu(gate[n]) * up[n].
  void (*swiglu)(float* gate, const float* up, int n);
  // Rounds to nearest even; and widens.
  void (*to_bf16)(const float* x, int n, uint16_t* out);
  void (*from_bf16)(const uint16_t* x, int n, float* out);
};

// FAILED_PRECONDITION unless this machine has the instructions.
absl::StatusOr<const Kernels*> KernelsFor(Isa isa);
// The best of this machine, or FAILED_PRECONDITION: AVX2 and FMA are the least. The BF16 dot
// product is chosen where it is clearly faster than F32 arithmetic, which it is not on every CPU
// that has it.
absl::StatusOr<Isa> BestIsa();

// Register-only arithmetic rate of one core, FLOP/s: the peak that GEMM is held against. About
// `rounds` microseconds; the best of many short runs.
double PeakFlops(Isa isa, int rounds);

}  // namespace tarn::engine
