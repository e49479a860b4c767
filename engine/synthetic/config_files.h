#pragma once

// The JSON files of a Hugging Face directory that describe a model. Pure functions.

#include <string>

#include "engine/synthetic/synthetic_model.h"

namespace tarn::engine {

// config.json: what ModelConfig::Parse reads back as spec.config.
std::string MakeConfigJson(const SyntheticSpec& spec);

// generation_config.json, with the sampling that the family recommends.
std::string MakeGenerationConfigJson(const ModelConfig& config);

}  // namespace tarn::engine
