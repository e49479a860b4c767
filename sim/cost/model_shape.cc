#include "sim/cost/model_shape.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace tarn::sim {
namespace {

// Parameters of attention in one layer.
double AttentionParams(const ModelShape& m) {
  const double hidden = m.hidden, heads = m.heads;
  if (m.latent_dim == 0) {
    const double kv = m.kv_heads * static_cast<double>(m.head_dim);
    return 2 * hidden * heads * m.head_dim + 2 * hidden * kv;
  }
  const double compressed = m.latent_dim - m.latent_rope_dim;
  return hidden * m.latent_query_rank +                                  // query down
         m.latent_query_rank * heads * (m.head_dim + m.latent_rope_dim)  // query up
         + hidden * m.latent_dim                                         // K and V down
         + compressed * heads * (m.head_dim + m.value_head_dim)          // K and V up
         + heads * m.value_head_dim * hidden;                            // out
}

double ExpertParams(const ModelShape& m) { return 3.0 * m.hidden * m.expert_intermediate; }

ModelShape Dense(const char* name, int layers, int hidden, int heads, int kv_heads, int head_dim,
                 int intermediate, int vocab, bool tied) {
  return {.name = name,
          .layers = layers,
          .hidden = hidden,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .vocab = vocab,
          .tied_embeddings = tied,
          .dense_layers = layers,
          .intermediate = intermediate};
}

ModelShape Qwen3Moe() {
  ModelShape m = Dense("Qwen3-30B-A3B", 48, 2048, 32, 4, 128, 0, 151'936, false);
  m.dense_layers = 0;
  m.experts = 128;
  m.experts_per_token = 8;
  m.expert_intermediate = 768;
  return m;
}

ModelShape DeepSeekV3() {
  ModelShape m = Dense("DeepSeek-V3", 61, 7168, 128, 128, 128, 18'432, 129'280, false);
  m.dense_layers = 3;
  m.experts = 256;
  m.experts_per_token = 8;
  m.shared_experts = 1;
  m.expert_intermediate = 2048;
  m.latent_dim = 576;
  m.latent_rope_dim = 64;
  m.latent_query_rank = 1536;
  m.value_head_dim = 128;
  m.bytes_per_param = 1;
  return m;
}

}  // namespace

double ModelShape::always_active_params() const {
  const double moe_layers = layers - dense_layers;
  return layers * AttentionParams(*this) + dense_layers * 3.0 * hidden * intermediate +
         moe_layers *
             (shared_experts * ExpertParams(*this) + static_cast<double>(hidden) * experts);
}

double ModelShape::expert_params() const {
  return static_cast<double>(layers - dense_layers) * experts * ExpertParams(*this);
}

double ModelShape::touched_experts(double tokens) const {
  if (experts == 0) return 0;
  return 1 - std::pow(1 - static_cast<double>(experts_per_token) / experts, tokens);
}

double ModelShape::active_params() const {
  if (experts == 0) return always_active_params();
  return always_active_params() + expert_params() * experts_per_token / experts;
}

double ModelShape::total_params() const {
  return always_active_params() + expert_params() + head_params() * (tied_embeddings ? 1 : 2);
}

double ModelShape::prefill_pair_flops() const {
  // Q·K and P·V, a multiplication and an addition each.
  const double dims =
      latent_dim == 0 ? 2.0 * head_dim : head_dim + latent_rope_dim + value_head_dim;
  return 2 * dims * heads * layers;
}

double ModelShape::decode_pair_flops() const {
  if (latent_dim == 0) return prefill_pair_flops();
  return 2.0 * (latent_dim + latent_dim - latent_rope_dim) * heads * layers;
}

double ModelShape::kv_bytes_per_token() const {
  const double values = latent_dim == 0 ? 2.0 * kv_heads * head_dim : latent_dim;
  return values * layers * bytes_per_kv_value;
}

const std::vector<ModelShape>& KnownModels() {
  static const auto* const kModels = new std::vector<ModelShape>{
      Dense("Qwen3-0.6B", 28, 1024, 16, 8, 128, 3072, 151'936, true),
      Dense("Qwen3-8B", 36, 4096, 32, 8, 128, 12'288, 151'936, false),
      Dense("Qwen3-32B", 64, 5120, 64, 8, 128, 25'600, 151'936, false),
      Qwen3Moe(),
      Dense("Llama-3-8B", 32, 4096, 32, 8, 128, 14'336, 128'256, false),
      Dense("Llama-3-70B", 80, 8192, 64, 8, 128, 28'672, 128'256, false),
      DeepSeekV3(),
  };
  return *kModels;
}

absl::StatusOr<ModelShape> FindModel(const std::string& name) {
  std::string known;
  for (const ModelShape& model : KnownModels()) {
    if (model.name == name) return model;
    absl::StrAppend(&known, known.empty() ? "" : ", ", model.name);
  }
  return absl::NotFoundError("no model shape \"" + name + "\"; known: " + known);
}

}  // namespace tarn::sim
