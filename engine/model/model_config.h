#pragma once

// What config.json of a Hugging Face directory says about a dense decoder: Qwen3ForCausalLM and
// LlamaForCausalLM (Llama 3). Plain values; thread-compatible. Loading reads a file.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"

namespace tarn::engine {

enum class Architecture { kQwen3, kLlama };

// How rotary positions are stretched beyond the trained context. Names and meaning of the fields as
// in Hugging Face's `rope_scaling`.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kNone;
  double factor = 1;
  int original_max_position = 0;  // llama3, yarn
  double low_freq_factor = 1;     // llama3
  double high_freq_factor = 4;    // llama3
  double beta_fast = 32;          // yarn
  double beta_slow = 1;           // yarn
  double attention_factor = 1;    // yarn: multiplies cos and sin
  bool truncate = true;           // yarn: rounds the corners of the ramp outward
};

struct ModelConfig {
  Architecture architecture = Architecture::kQwen3;
  int hidden_size = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;  // divides heads
  int head_dim = 0;  // even
  int intermediate_size = 0;
  int vocab_size = 0;
  int max_position = 0;  // tokens of context, stretched by YaRN where configured
  double rms_norm_eps = 0;
  double rope_theta = 0;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  std::vector<TokenId> eos_token_ids;  // may be empty
  TokenId bos_token_id = -1;           // -1: none

  // Rows of the q, k and v projections.
  int q_rows() const { return heads * head_dim; }
  int kv_rows() const { return kv_heads * head_dim; }
  // Qwen3 normalises each head of q and k.
  bool qk_norm() const { return architecture == Architecture::kQwen3; }

  // INVALID_ARGUMENT names `file`, the field and what is expected: missing, mistyped, out of range,
  // or a feature that is not supported (sliding windows, scaling that depends on the length).
  static absl::StatusOr<ModelConfig> Parse(const std::string& text, const std::string& file);
};

// All of a text file. NOT_FOUND, or INVALID_ARGUMENT over `limit` bytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t limit = 16 << 20);

}  // namespace tarn::engine
