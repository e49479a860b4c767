#pragma once

// Streams random tensors into safetensors files. Blocks on the disk; a few megabytes of memory for
// each thread.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "engine/synthetic/synthetic_model.h"

namespace tarn::engine {

// `path: what: reason` with the code that fits `error` (of errno).
absl::Status FileError(int error, const std::string& what, const std::string& path);

// Creates or replaces a small file.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

// Size of all tensors' data.
int64_t WeightBytes(const SyntheticSpec& spec);

// Writes model.safetensors, or model-0000x-of-0000y.safetensors and their index, into `directory`.
absl::Status WriteWeights(const std::string& directory, const SyntheticSpec& spec, int threads,
                          const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace tarn::engine
