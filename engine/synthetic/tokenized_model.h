#pragma once

// A synthetic model together with a tokenizer that fits it: all that a node needs to serve.
// A plain function; blocks while it trains (about a second) and writes.

#include <string>

#include "absl/status/status.h"
#include "engine/synthetic/synthetic_model.h"

namespace tarn::engine {

// Trains a tokenizer of spec.config.vocab_size ids on DemoCorpus(), in the chat form of the
// architecture, and writes both into one directory. The spec's token ids and used_vocab are
// replaced by those of the tokenizer; where it has fewer tokens than the vocabulary has, the rest
// is reserved. Errors as WriteModel; INVALID_ARGUMENT also where the vocabulary is too small for
// 256 bytes and the special tokens.
absl::Status WriteTokenizedModel(const std::string& directory, SyntheticSpec spec,
                                 WriteModelOptions options = {});

}  // namespace tarn::engine
