#pragma once

// Writes Hugging Face directories with seeded random weights, so that nothing has to be downloaded.
//
// The text of such a model is noise, but shapes, files and cost are those of a real one. A weight
// is a function of (seed, tensor's name, index): the same on every machine and for any sharding.
// Plain functions. They block on the disk, and hold a few megabytes whatever the model's size.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

struct SyntheticSpec {
  ModelConfig config;
  DataType type = DataType::kBf16;
  uint64_t seed = 1;
  // Tensors are spread over shards of at most this size, except that one tensor is never split.
  // 0: one file without an index.
  int64_t max_shard_bytes = 0;
  // Tokens from here on have no text (a tokenizer smaller than the vocabulary): their logits are
  // near 0, far below the best of the others. 0: all tokens have text.
  int used_vocab = 0;
};

// Names of SyntheticPreset, smallest first.
std::vector<std::string> SyntheticPresetNames();

// "tiny", "tiny-llama" (unit tests), "demo" (20 M parameters, quick on one core), and the public
// shapes "qwen3-0.6b", "llama3.2-1b", "qwen3-1.7b", "llama3-8b", "qwen3-8b". NOT_FOUND lists them.
absl::StatusOr<SyntheticSpec> SyntheticPreset(const std::string& name);

int64_t ParameterCount(const ModelConfig& config);

struct WriteModelOptions {
  // Replaces an existing model directory; anything else there is an error all the same.
  bool overwrite = false;
  int threads = 2;  // at least 1
  // Bytes of weights so far and in all. Called by writing threads, one at a time.
  std::function<void(int64_t done, int64_t total)> progress;
  // Adds further files (the tokenizer's) to the directory before it gets its name.
  std::function<absl::Status(const std::string& directory)> add_files;
};

// Writes config.json, generation_config.json and the weights into a temporary directory beside
// `directory`, then renames: there is a whole model or none. A killed run leaves only
// `directory`.partial.*.
// ALREADY_EXISTS: `directory` has files. RESOURCE_EXHAUSTED: disk full. PERMISSION_DENIED.
// INVALID_ARGUMENT: names the field of the spec. `add_files`' own errors.
absl::Status WriteModel(const std::string& directory, const SyntheticSpec& spec,
                        const WriteModelOptions& options = {});

}  // namespace tarn::engine
