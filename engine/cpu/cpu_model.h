#pragma once

// A checkpoint made ready for the CPU kernels: weights packed, layout and fingerprint known. The
// executor needs pages, and pages need the layout, so loading comes first and by itself.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/thread_pool.h"
#include "engine/executor.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

enum class IsaChoice : uint8_t { kAuto, kAvx2, kAvx512, kAvx512Bf16 };

struct CpuOptions {
  std::string name;       // as served; empty: the directory's last component
  int block_tokens = 32;  // a power of two, 16 to 256
  int threads = 0;        // 0: one for each CPU that this process may use
  // kAuto: the best of this machine, see BestIsa(). KV of avx2 and avx512 is the same; that of
  // avx512_bf16 differs, so all nodes that share KV must choose alike.
  IsaChoice isa = IsaChoice::kAuto;
};

// "auto", "avx2", "avx512", "avx512_bf16"; INVALID_ARGUMENT else.
absl::StatusOr<IsaChoice> ParseIsaChoice(const std::string& name);

struct PackedLayer {
  std::vector<float> input_norm;  // [hidden]
  std::vector<float> q_norm;      // [head_dim], or empty
  std::vector<float> k_norm;      // [head_dim], or empty
  std::vector<float> post_norm;   // [hidden]
  std::vector<float> qkv_bias;    // as qkv's rows, or empty
  std::vector<float> o_bias;      // [hidden], or empty
  PackedMatrix qkv;               // q, k, v, each padded to a panel
  PackedMatrix o;
  PackedMatrix gate_up;  // gate, up, each padded to a panel
  PackedMatrix down;
};

// Immutable after Load, except for its threads, which one executor at a time may use.
class CpuModel {
 public:
  // Reads config.json and the weights of `model_dir`, packs them, hashes every byte: seconds.
  // Errors name file, field or tensor: INVALID_ARGUMENT, DATA_LOSS, NOT_FOUND; FAILED_PRECONDITION
  // if the machine lacks the instructions.
  static absl::StatusOr<std::shared_ptr<const CpuModel>> Load(const std::string& model_dir,
                                                              const CpuOptions& options);

  const ModelConfig& config() const { return config_; }
  const ModelInfo& info() const { return info_; }
  const BlockLayout& layout() const { return layout_; }
  Isa isa() const { return isa_; }
  const Kernels& kernels() const { return *kernels_; }
  ThreadPool& pool() const { return *pool_; }
  // Whether products with BF16 weights take BF16 activations.
  bool dot() const { return kernels_->gemm_bf16_dot != nullptr; }

  const std::vector<PackedLayer>& layers() const { return layers_; }
  const std::vector<float>& final_norm() const { return final_norm_; }
  const PackedMatrix& head() const { return head_; }
  const std::vector<double>& rope_frequencies() const { return rope_frequencies_; }
  // The token's row, [hidden], widened.
  void Embed(TokenId token, float* out) const;
  // Bytes that one decode step reads: all packed matrices.
  size_t packed_bytes() const;

 private:
  CpuModel() = default;
  absl::Status Pack(const std::string& config_text);
  absl::Status Describe(const CpuOptions& options, const std::string& model_dir);

  ModelConfig config_;
  ModelInfo info_;
  BlockLayout layout_;
  Isa isa_ = Isa::kAvx2;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TensorFiles> files_;  // the embedding is read where it is mapped
  TensorView embedding_;
  std::vector<PackedLayer> layers_;
  std::vector<float> final_norm_;
  PackedMatrix head_;
  std::vector<double> rope_frequencies_;
};

}  // namespace tarn::engine
