#pragma once

// What is needed of a model to talk to it in text: everything of its directory but the weights.
// Immutable and thread-safe once loaded; only Load reads files.

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/generation_config.h"
#include "engine/model/model_config.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {

struct TextModel {
  std::string name;  // as served
  ModelConfig config;
  GenerationConfig generation;
  std::shared_ptr<const Tokenizer> tokenizer;
  // A base model has no chat template: then the status says so.
  absl::StatusOr<ChatTemplate> chat = absl::NotFoundError("the model has no chat template");

  // An empty `served_name` takes the directory's last component. Errors name the file.
  static absl::StatusOr<TextModel> Load(const std::string& directory,
                                        const std::string& served_name);
};

}  // namespace tarn::engine
