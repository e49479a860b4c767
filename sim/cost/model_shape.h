#pragma once

// What a model's size means for time and memory: parameters, operations, KV bytes. Pure values.

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn::sim {

// The dimensions that a model's config.json gives; everything else follows from them.
struct ModelShape {
  std::string name;
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab = 0;
  bool tied_embeddings = false;

  // The MLP of dense layers: three matrices of hidden x this.
  int dense_layers = 0;
  int intermediate = 0;
  // Mixture-of-experts layers, which are the others.
  int experts = 0;
  int experts_per_token = 0;
  int shared_experts = 0;
  int expert_intermediate = 0;

  // Multi-head latent attention (DeepSeek): what is cached of a token and layer, and the ranks and
  // head sizes of its projections. 0: plain grouped-query attention.
  int latent_dim = 0;  // compressed K and V, with the rotary part
  int latent_rope_dim = 0;
  int latent_query_rank = 0;
  int value_head_dim = 0;

  double bytes_per_param = 2;
  double bytes_per_kv_value = 2;

  // Matrix parameters that every token passes, all layers; embedding and output head apart.
  double always_active_params() const;
  // Of all routed experts of all layers.
  double expert_params() const;
  // The share of routed experts that `tokens` independent tokens touch.
  double touched_experts(double tokens) const;
  // Matrix parameters that one token passes: always active, and its experts.
  double active_params() const;
  double head_params() const { return static_cast<double>(vocab) * hidden; }
  double total_params() const;

  // Operations for one query token and one token that it looks at, all layers: in prefill, and in
  // decoding, where latent attention works in the compressed space.
  double prefill_pair_flops() const;
  double decode_pair_flops() const;
  double kv_bytes_per_token() const;
};

// Qwen3-0.6B, Qwen3-8B, Qwen3-32B, Qwen3-30B-A3B, Llama-3-8B, Llama-3-70B, DeepSeek-V3, in BF16
// with BF16 KV, but DeepSeek-V3's weights in FP8. Dimensions from the config.json that their makers
// publish.
const std::vector<ModelShape>& KnownModels();

// NOT_FOUND lists the known ones.
absl::StatusOr<ModelShape> FindModel(const std::string& name);

}  // namespace tarn::sim
