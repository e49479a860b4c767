#include "engine/model/model_config.h"

#include <cmath>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/model/json_fields.h"
#include "engine/model/token_ids.h"

namespace tarn::engine {
namespace {

// Above every published model; keeps all products of two dimensions far from overflow.
constexpr int kMaxDim = 1 << 20;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxPositions = 1 << 24;

absl::Status ParseArchitecture(const JsonFields& fields, ModelConfig* config) {
  std::string name;
  if (fields.Has("architectures")) {
    const nlohmann::json& list = fields["architectures"];
    if (!list.is_array() || list.size() != 1 || !list[0].is_string()) {
      return fields.Error("architectures", "expected a list of one name");
    }
    name = list[0].get<std::string>();
  }
  if (name == "Qwen3ForCausalLM") {
    config->architecture = Architecture::kQwen3;
  } else if (name == "LlamaForCausalLM") {
    config->architecture = Architecture::kLlama;
  } else {
    return fields.Error(
        "architectures",
        absl::StrCat("is \"", name, "\", expected Qwen3ForCausalLM or LlamaForCausalLM"));
  }
  return absl::OkStatus();
}

absl::Status ParseDimensions(const JsonFields& fields, ModelConfig* config) {
  RETURN_IF_ERROR(fields.RequireInt("hidden_size", 1, kMaxDim, &config->hidden_size));
  RETURN_IF_ERROR(fields.RequireInt("num_hidden_layers", 1, 1024, &config->layers));
  RETURN_IF_ERROR(fields.RequireInt("num_attention_heads", 1, 1024, &config->heads));
  RETURN_IF_ERROR(fields.RequireInt("intermediate_size", 1, kMaxDim, &config->intermediate_size));
  RETURN_IF_ERROR(fields.RequireInt("vocab_size", 1, kMaxVocab, &config->vocab_size));
  RETURN_IF_ERROR(
      fields.RequireInt("max_position_embeddings", 1, kMaxPositions, &config->max_position));
  config->kv_heads = config->heads;
  RETURN_IF_ERROR(fields.GetInt("num_key_value_heads", 1, 1024, &config->kv_heads));
  if (config->heads % config->kv_heads != 0) {
    return fields.Error("num_key_value_heads",
                        absl::StrCat("is ", config->kv_heads, ", expected a divisor of ",
                                     "num_attention_heads, which is ", config->heads));
  }
  if (!fields.Has("head_dim") && config->hidden_size % config->heads != 0) {
    return fields.Error("head_dim",
                        absl::StrCat("missing, and hidden_size ", config->hidden_size,
                                     " is not a multiple of num_attention_heads ", config->heads));
  }
  config->head_dim = config->hidden_size / config->heads;
  RETURN_IF_ERROR(fields.GetInt("head_dim", 2, 1024, &config->head_dim));
  if (config->head_dim < 2 || config->head_dim > 1024 || config->head_dim % 2 != 0) {
    return fields.Error("head_dim", absl::StrCat("is ", config->head_dim,
                                                 ", expected an even number from 2 to 1024"));
  }
  return absl::OkStatus();
}

absl::Status ParseLlama3(const JsonFields& fields, RopeScaling* scaling) {
  RETURN_IF_ERROR(fields.RequireNumber("low_freq_factor", 1e-3, 1e3, &scaling->low_freq_factor));
  RETURN_IF_ERROR(fields.RequireNumber("high_freq_factor", 1e-3, 1e3, &scaling->high_freq_factor));
  if (scaling->high_freq_factor <= scaling->low_freq_factor) {
    return fields.Error("high_freq_factor", "must be above low_freq_factor");
  }
  return fields.RequireInt("original_max_position_embeddings", 1, kMaxPositions,
                           &scaling->original_max_position);
}

// The magnitude correction of YaRN (Peng et al., "YaRN: Efficient Context Window Extension of Large
// Language Models", 2023, section 3.4), with the two-sided form of DeepSeek's configs.
double YarnMagnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

absl::Status ParseYarn(const JsonFields& fields, ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  scaling.original_max_position = config->max_position;
  RETURN_IF_ERROR(fields.GetInt("original_max_position_embeddings", 1, kMaxPositions,
                                &scaling.original_max_position));
  RETURN_IF_ERROR(fields.GetNumber("beta_fast", 1e-3, 1e6, &scaling.beta_fast));
  RETURN_IF_ERROR(fields.GetNumber("beta_slow", 1e-3, 1e6, &scaling.beta_slow));
  RETURN_IF_ERROR(fields.GetBool("truncate", &scaling.truncate));
  double mscale = 0;
  double mscale_all_dim = 0;
  RETURN_IF_ERROR(fields.GetNumber("mscale", 0, 1e3, &mscale));
  RETURN_IF_ERROR(fields.GetNumber("mscale_all_dim", 0, 1e3, &mscale_all_dim));
  const bool two_sided = mscale != 0 && mscale_all_dim != 0;
  scaling.attention_factor = two_sided ? YarnMagnitude(scaling.factor, mscale) /
                                             YarnMagnitude(scaling.factor, mscale_all_dim)
                                       : YarnMagnitude(scaling.factor, 1);
  RETURN_IF_ERROR(fields.GetNumber("attention_factor", 1e-6, 1e6, &scaling.attention_factor));
  const double stretched = scaling.original_max_position * scaling.factor;
  if (stretched > kMaxPositions) {
    return fields.Error("factor", absl::StrCat("stretches the context to ", stretched,
                                               " tokens, the limit is ", kMaxPositions));
  }
  if (fields.Has("original_max_position_embeddings")) {
    config->max_position = static_cast<int>(stretched);
  }
  return absl::OkStatus();
}

absl::Status ParseScaling(const JsonFields& fields, ModelConfig* config) {
  std::string type = "default";
  RETURN_IF_ERROR(fields.GetString("type", &type));
  RETURN_IF_ERROR(fields.GetString("rope_type", &type));
  if (type == "default") return absl::OkStatus();
  if (type == "dynamic") {
    return fields.Error("rope_type",
                        "\"dynamic\" is not supported: its rotation of a token depends on the "
                        "length of the whole sequence, so cached KV would change; use \"yarn\"");
  }
  RopeScaling& scaling = config->rope_scaling;
  if (type != "linear" && type != "llama3" && type != "yarn") {
    return fields.Error("rope_type", absl::StrCat("is \"", type, "\", expected default, linear, ",
                                                  "llama3 or yarn"));
  }
  RETURN_IF_ERROR(fields.RequireNumber("factor", 1, 1e4, &scaling.factor));
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    return absl::OkStatus();
  }
  if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::kLlama3;
    return ParseLlama3(fields, &scaling);
  }
  scaling.kind = RopeScaling::Kind::kYarn;
  return ParseYarn(fields, config);
}

// Transformers 4 has `rope_theta` and `rope_scaling`; 5 has both in `rope_parameters`.
absl::Status ParseRope(const JsonFields& fields, const std::string& file, ModelConfig* config) {
  config->rope_theta = 10000;
  RETURN_IF_ERROR(fields.GetNumber("rope_theta", 1, 1e12, &config->rope_theta));
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!fields.Has(name)) continue;
    if (!fields[name].is_object()) return fields.Error(name, "expected an object or null");
    const JsonFields scaling(fields[name], file, absl::StrCat(name, "."));
    RETURN_IF_ERROR(scaling.GetNumber("rope_theta", 1, 1e12, &config->rope_theta));
    RETURN_IF_ERROR(ParseScaling(scaling, config));
  }
  return absl::OkStatus();
}

absl::Status ParseUnsupported(const JsonFields& fields) {
  bool sliding = false;
  RETURN_IF_ERROR(fields.GetBool("use_sliding_window", &sliding));
  if (sliding) {
    return fields.Error("use_sliding_window", "is true; sliding-window attention is not supported");
  }
  std::string activation = "silu";
  RETURN_IF_ERROR(fields.GetString("hidden_act", &activation));
  if (activation != "silu") {
    return fields.Error("hidden_act", absl::StrCat("is \"", activation, "\", expected silu"));
  }
  bool mlp_bias = false;
  RETURN_IF_ERROR(fields.GetBool("mlp_bias", &mlp_bias));
  if (mlp_bias) return fields.Error("mlp_bias", "is true; a bias in the MLP is not supported");
  double partial = 1;
  RETURN_IF_ERROR(fields.GetNumber("partial_rotary_factor", 0, 1, &partial));
  if (partial != 1) {
    return fields.Error("partial_rotary_factor", absl::StrCat("is ", partial, ", expected 1"));
  }
  if (fields.Has("quantization_config")) {
    return fields.Error("quantization_config", "quantised checkpoints are not supported");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::Parse(const std::string& text, const std::string& file) {
  ASSIGN_OR_RETURN(const nlohmann::json root, ParseJsonObject(text, file));
  const JsonFields fields(root, file);
  ModelConfig config;
  RETURN_IF_ERROR(ParseArchitecture(fields, &config));
  RETURN_IF_ERROR(ParseUnsupported(fields));
  RETURN_IF_ERROR(ParseDimensions(fields, &config));
  RETURN_IF_ERROR(fields.RequireNumber("rms_norm_eps", 0, 1, &config.rms_norm_eps));
  RETURN_IF_ERROR(ParseRope(fields, file, &config));
  RETURN_IF_ERROR(fields.GetBool("tie_word_embeddings", &config.tie_word_embeddings));
  RETURN_IF_ERROR(fields.GetBool("attention_bias", &config.attention_bias));
  RETURN_IF_ERROR(GetTokenIds(fields, "eos_token_id", config.vocab_size, &config.eos_token_ids));
  std::vector<TokenId> bos;
  RETURN_IF_ERROR(GetTokenIds(fields, "bos_token_id", config.vocab_size, &bos));
  if (!bos.empty()) config.bos_token_id = bos[0];
  return config;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t limit) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::string text(limit + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > limit) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": over ", limit, " bytes"));
  }
  return text;
}

}  // namespace tarn::engine
