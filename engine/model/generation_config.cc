#include "engine/model/generation_config.h"

#include <climits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/model/json_fields.h"
#include "engine/model/token_ids.h"

namespace tarn::engine {
namespace {

absl::Status GetFloat(const JsonFields& fields, const std::string& field, double low, double high,
                      float* value) {
  double number = *value;
  RETURN_IF_ERROR(fields.GetNumber(field, low, high, &number));
  *value = static_cast<float>(number);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationConfig> GenerationConfig::Parse(const std::string& text,
                                                         const std::string& file,
                                                         const ModelConfig& model) {
  ASSIGN_OR_RETURN(const nlohmann::json root, ParseJsonObject(text, file));
  const JsonFields fields(root, file);
  GenerationConfig config;
  config.eos_token_ids = model.eos_token_ids;
  RETURN_IF_ERROR(GetTokenIds(fields, "eos_token_id", model.vocab_size, &config.eos_token_ids));
  RETURN_IF_ERROR(GetFloat(fields, "temperature", 0, 100, &config.temperature));
  RETURN_IF_ERROR(GetFloat(fields, "top_p", 1e-6, 1, &config.top_p));
  RETURN_IF_ERROR(GetFloat(fields, "repetition_penalty", 1e-6, 100, &config.repetition_penalty));
  RETURN_IF_ERROR(fields.GetInt("top_k", 0, INT_MAX, &config.top_k));
  bool sample = true;
  RETURN_IF_ERROR(fields.GetBool("do_sample", &sample));
  if (!sample) config.temperature = 0;
  return config;
}

absl::StatusOr<GenerationConfig> GenerationConfig::Load(const std::string& model_dir,
                                                        const ModelConfig& model) {
  const std::string file = absl::StrCat(model_dir, "/generation_config.json");
  absl::StatusOr<std::string> text = ReadTextFile(file);
  if (absl::IsNotFound(text.status())) return Parse("{}", file, model);
  RETURN_IF_ERROR(text.status());
  return Parse(*text, file, model);
}

}  // namespace tarn::engine
