#pragma once

// Frequencies of the rotary embedding (Su et al., "RoFormer", 2021) with Hugging Face's scalings:
// linear, Llama 3's, and YaRN (Peng et al., 2023). Pure functions; double precision.

#include <vector>

#include "engine/model/model_config.h"

namespace tarn::engine {

// Radians a position for each of the head_dim / 2 pairs (i, i + head_dim / 2). Cosine and sine are
// to be multiplied by `config.rope_scaling.attention_factor`.
std::vector<double> RopeFrequencies(const ModelConfig& config);

}  // namespace tarn::engine
