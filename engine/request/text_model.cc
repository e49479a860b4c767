#include "engine/request/text_model.h"

#include <filesystem>
#include <utility>

#include "common/base/status.h"

namespace tarn::engine {
namespace {

std::string LastComponent(const std::string& directory) {
  std::filesystem::path path = std::filesystem::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

absl::StatusOr<TextModel> TextModel::Load(const std::string& directory,
                                          const std::string& served_name) {
  TextModel model;
  model.name = served_name.empty() ? LastComponent(directory) : served_name;
  const std::string config_file = directory + "/config.json";
  ASSIGN_OR_RETURN(const std::string config, ReadTextFile(config_file));
  ASSIGN_OR_RETURN(model.config, ModelConfig::Parse(config, config_file));
  ASSIGN_OR_RETURN(model.generation, GenerationConfig::Load(directory, model.config));
  ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::Load(directory));
  if (model.tokenizer->vocab_size() > model.config.vocab_size) {
    return absl::InvalidArgumentError(directory + ": the tokenizer has ids up to " +
                                      std::to_string(model.tokenizer->vocab_size() - 1) +
                                      ", config.json's vocab_size is " +
                                      std::to_string(model.config.vocab_size));
  }
  model.chat = ChatTemplate::Load(directory, model.tokenizer);
  return model;
}

}  // namespace tarn::engine
