#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/synthetic/synthetic_model.h"

namespace tarn::engine {
namespace {

struct Preset {
  const char* name;
  Architecture architecture;
  int hidden_size;
  int layers;
  int heads;
  int kv_heads;
  int head_dim;
  int intermediate_size;
  int vocab_size;
  int max_position;
  bool tied;
};

constexpr Architecture kQwen3 = Architecture::kQwen3;
constexpr Architecture kLlama = Architecture::kLlama;

// The real ones are as in their public config.json.
constexpr Preset kPresets[] = {
    {"tiny", kQwen3, 64, 2, 4, 2, 16, 192, 2048, 4096, true},
    {"tiny-llama", kLlama, 64, 2, 4, 2, 16, 192, 2048, 4096, false},
    {"demo", kQwen3, 384, 8, 6, 2, 64, 1536, 8192, 8192, true},
    {"qwen3-0.6b", kQwen3, 1024, 28, 16, 8, 128, 3072, 151936, 40960, true},
    {"llama3.2-1b", kLlama, 2048, 16, 32, 8, 64, 8192, 128256, 131072, true},
    {"qwen3-1.7b", kQwen3, 2048, 28, 16, 8, 128, 6144, 151936, 40960, true},
    {"llama3-8b", kLlama, 4096, 32, 32, 8, 128, 14336, 128256, 8192, false},
    {"qwen3-8b", kQwen3, 4096, 36, 32, 8, 128, 12288, 151936, 40960, false},
};

// The ids of the real tokenizers, where the vocabulary is theirs.
void SetTokenIds(ModelConfig& config) {
  if (config.vocab_size == 151936) {
    config.bos_token_id = 151643;             // <|endoftext|>
    config.eos_token_ids = {151645, 151643};  // <|im_end|>
  } else if (config.vocab_size == 128256) {
    config.bos_token_id = 128000;             // <|begin_of_text|>
    config.eos_token_ids = {128001, 128009};  // <|end_of_text|>, <|eot_id|>
  }
}

SyntheticSpec MakeSpec(const Preset& preset) {
  const bool qwen = preset.architecture == kQwen3;
  SyntheticSpec spec;
  ModelConfig& config = spec.config;
  config.architecture = preset.architecture;
  config.hidden_size = preset.hidden_size;
  config.layers = preset.layers;
  config.heads = preset.heads;
  config.kv_heads = preset.kv_heads;
  config.head_dim = preset.head_dim;
  config.intermediate_size = preset.intermediate_size;
  config.vocab_size = preset.vocab_size;
  config.max_position = preset.max_position;
  config.tie_word_embeddings = preset.tied;
  config.rms_norm_eps = qwen ? 1e-6 : 1e-5;
  config.rope_theta = qwen ? 1e6 : 5e5;
  if (!qwen && preset.max_position > 8192) {
    config.rope_scaling = {.kind = RopeScaling::Kind::kLlama3,
                           .factor = 32,
                           .original_max_position = 8192,
                           .low_freq_factor = 1,
                           .high_freq_factor = 4};
  }
  SetTokenIds(config);
  return spec;
}

}  // namespace

std::vector<std::string> SyntheticPresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.push_back(preset.name);
  return names;
}

absl::StatusOr<SyntheticSpec> SyntheticPreset(const std::string& name) {
  for (const Preset& preset : kPresets) {
    if (name == preset.name) return MakeSpec(preset);
  }
  return absl::NotFoundError(absl::StrCat("no synthetic model \"", name, "\"; there are ",
                                          absl::StrJoin(SyntheticPresetNames(), ", ")));
}

}  // namespace tarn::engine
