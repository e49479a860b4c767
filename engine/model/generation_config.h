#pragma once

// Defaults for requests, from generation_config.json of a Hugging Face directory.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"
#include "engine/model/model_config.h"

namespace tarn::engine {

struct GenerationConfig {
  std::vector<TokenId> eos_token_ids;  // any of them ends the answer
  float temperature = 1.0f;
  float top_p = 1.0f;
  int top_k = 0;  // 0: all
  float repetition_penalty = 1.0f;

  // `model` gives the range of ids, and the ids where the file has none. INVALID_ARGUMENT names
  // `file`, field and limits.
  static absl::StatusOr<GenerationConfig> Parse(const std::string& text, const std::string& file,
                                                const ModelConfig& model);
  // Of `model_dir`; without the file, the model's own ids and neutral defaults.
  static absl::StatusOr<GenerationConfig> Load(const std::string& model_dir,
                                               const ModelConfig& model);
};

}  // namespace tarn::engine
