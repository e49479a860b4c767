#include "client/cli/shape.h"

#include <fstream>

#include "client/cli/commands.h"
#include "common/base/status.h"
#include "engine/model/model_config.h"

namespace tarn::client {

absl::StatusOr<sim::ModelShape> ReadModelShape(const std::string& name_or_directory) {
  auto known = sim::FindModel(name_or_directory);
  if (known.ok() || name_or_directory.find('/') == std::string::npos) return known;
  const std::string file = name_or_directory + "/config.json";
  ASSIGN_OR_RETURN(const std::string text, engine::ReadTextFile(file));
  ASSIGN_OR_RETURN(const engine::ModelConfig config, engine::ModelConfig::Parse(text, file));
  sim::ModelShape shape;
  shape.name = name_or_directory;
  shape.layers = shape.dense_layers = config.layers;
  shape.hidden = config.hidden_size;
  shape.heads = config.heads;
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  shape.vocab = config.vocab_size;
  shape.tied_embeddings = config.tie_word_embeddings;
  shape.intermediate = config.intermediate_size;
  return shape;
}

absl::StatusOr<sim::HardwareProfile> ReadHardware(const std::string& name_or_file) {
  auto known = sim::FindHardware(name_or_file);
  if (known.ok() || name_or_file.find_first_of("./") == std::string::npos) return known;
  ASSIGN_OR_RETURN(const std::string text, ReadInput(name_or_file));
  const auto profile = sim::ParseHardware(text);
  if (!profile.ok()) return Annotate(profile.status(), name_or_file);
  return profile;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << '\n';
  file.close();
  if (!file) return absl::UnavailableError(path + ": cannot be written");
  return absl::OkStatus();
}

}  // namespace tarn::client
