#pragma once

// The tensors of a dense decoder by role, checked against the config. Views into TensorFiles: valid
// while it lives. Plain values. Shapes are [out rows, in columns], as Hugging Face stores them.

#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

struct LayerWeights {
  TensorView input_norm;  // [hidden]
  TensorView q;           // [q_rows, hidden]
  TensorView k;           // [kv_rows, hidden]
  TensorView v;           // [kv_rows, hidden]
  TensorView o;           // [hidden, q_rows]
  TensorView q_bias;      // [q_rows]; these four empty without attention_bias
  TensorView k_bias;      // [kv_rows]
  TensorView v_bias;      // [kv_rows]
  TensorView o_bias;      // [hidden]
  TensorView q_norm;      // [head_dim]; empty without qk_norm()
  TensorView k_norm;      // [head_dim]
  TensorView post_norm;   // [hidden]
  TensorView gate;        // [intermediate, hidden]
  TensorView up;          // [intermediate, hidden]
  TensorView down;        // [hidden, intermediate]
};

struct ModelWeights {
  TensorView embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  TensorView final_norm;  // [hidden]
  TensorView head;        // [vocab, hidden]; the embedding where tied
};

// INVALID_ARGUMENT names the tensor: missing, or of another shape than the config asks for.
absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const TensorFiles& files);

}  // namespace tarn::engine
