#include "engine/synthetic/config_files.h"

#include <nlohmann/json.hpp>

namespace tarn::engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTransformersVersion = "4.51.0";

Json ScalingJson(const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      return nullptr;
    case RopeScaling::Kind::kLinear:
      return {{"rope_type", "linear"}, {"factor", scaling.factor}};
    case RopeScaling::Kind::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", scaling.factor},
              {"low_freq_factor", scaling.low_freq_factor},
              {"high_freq_factor", scaling.high_freq_factor},
              {"original_max_position_embeddings", scaling.original_max_position}};
    case RopeScaling::Kind::kYarn:
      return {{"rope_type", "yarn"},
              {"factor", scaling.factor},
              {"original_max_position_embeddings", scaling.original_max_position},
              {"attention_factor", scaling.attention_factor},
              {"beta_fast", scaling.beta_fast},
              {"beta_slow", scaling.beta_slow},
              {"truncate", scaling.truncate}};
  }
  return nullptr;
}

const char* TorchType(DataType type) {
  switch (type) {
    case DataType::kF32:
      return "float32";
    case DataType::kF16:
      return "float16";
    case DataType::kBf16:
      return "bfloat16";
  }
  return "";
}

// One id is a number, several are a list, none is null: as transformers writes them.
Json TokenIdsJson(const std::vector<TokenId>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? Json(ids[0]) : Json(ids);
}

Json BosJson(const ModelConfig& config) {
  return config.bos_token_id < 0 ? Json(nullptr) : Json(config.bos_token_id);
}

}  // namespace

std::string MakeConfigJson(const SyntheticSpec& spec) {
  const ModelConfig& config = spec.config;
  const bool qwen = config.architecture == Architecture::kQwen3;
  Json json = {{"architectures", Json::array({qwen ? "Qwen3ForCausalLM" : "LlamaForCausalLM"})},
               {"model_type", qwen ? "qwen3" : "llama"},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.layers},
               {"num_attention_heads", config.heads},
               {"num_key_value_heads", config.kv_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"max_position_embeddings", config.max_position},
               {"hidden_act", "silu"},
               {"rms_norm_eps", config.rms_norm_eps},
               {"rope_theta", config.rope_theta},
               {"rope_scaling", ScalingJson(config.rope_scaling)},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"attention_bias", config.attention_bias},
               {"attention_dropout", 0.0},
               {"initializer_range", 0.02},
               {"bos_token_id", BosJson(config)},
               {"eos_token_id", TokenIdsJson(config.eos_token_ids)},
               {"torch_dtype", TorchType(spec.type)},
               {"use_cache", true},
               {"transformers_version", kTransformersVersion}};
  if (qwen) {
    json["use_sliding_window"] = false;
    json["sliding_window"] = nullptr;
    json["max_window_layers"] = config.layers;
  } else {
    json["mlp_bias"] = false;
    json["pretraining_tp"] = 1;
  }
  return json.dump(2) + "\n";
}

std::string MakeGenerationConfigJson(const ModelConfig& config) {
  const bool qwen = config.architecture == Architecture::kQwen3;
  Json json = {{"bos_token_id", BosJson(config)},
               {"eos_token_id", TokenIdsJson(config.eos_token_ids)},
               {"do_sample", true},
               {"temperature", 0.6},
               {"top_p", qwen ? 0.95 : 0.9}};
  if (qwen) json["top_k"] = 20;
  json["transformers_version"] = kTransformersVersion;
  return json.dump(2) + "\n";
}

}  // namespace tarn::engine
