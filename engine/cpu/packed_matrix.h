#pragma once

// A weight matrix [n][k], re-laid out once at load for the GEMM kernels (see GemmArgs), and the
// product with it.
//
// Immutable after packing; thread-safe then.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/cpu/kernels.h"
#include "engine/cpu/thread_pool.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

// Zeroed memory on huge pages where the kernel has some: weights are read at twice the bandwidth.
class BigBuffer {
 public:
  BigBuffer() = default;
  explicit BigBuffer(size_t bytes);
  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Unmap {
    size_t bytes;
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte[], Unmap> data_;
  size_t bytes_ = 0;
};

enum class PackedType : uint8_t { kF32, kBf16 };

class PackedMatrix {
 public:
  // Rows of all `parts` one below another, each part starting at a multiple of kPanel rows. Every
  // part is [rows, k]. BF16 parts stay BF16; F16 is widened to F32, since BF16 cannot hold it.
  static PackedMatrix Pack(std::span<const TensorView> parts, ThreadPool& pool);

  int n() const { return n_; }  // padded: a multiple of kPanel
  int k() const { return k_; }  // padded to even
  PackedType type() const { return type_; }
  size_t bytes() const { return data_.bytes(); }

  // y[m][n] (+)= x[m][k] * this^T. `x` is float, or bfloat16 if `dot` (BF16 matrices only). Rows of
  // x are readable, and zero, up to k().
  void Multiply(const Kernels& kernels, ThreadPool& pool, bool dot, const void* x, size_t ldx,
                int m, float* y, size_t ldy, bool accumulate) const;

 private:
  PackedType type_ = PackedType::kF32;
  int n_ = 0;
  int k_ = 0;
  size_t panel_bytes_ = 0;
  BigBuffer data_;
};

}  // namespace tarn::engine
