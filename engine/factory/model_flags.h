#pragma once

// The flags by which nodes and `tarn run` choose a model.

#include "common/config/command_line.h"
#include "engine/factory/model_factory.h"

namespace tarn::engine {

// --model (obligatory), --served-model-name, --block-tokens, --threads, --isa.
void AddModelFlags(CommandLine& command_line, ModelOptions& options);

}  // namespace tarn::engine
