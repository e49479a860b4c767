#pragma once

// Opens a model, whatever computes it: a Hugging Face directory on this machine's CPU, or "fake".
//
// The one place where an executor is chosen; nodes and `tarn run` share it, so that they agree on
// layout and fingerprint. Two steps, since pages need the layout and the executor needs the pages.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "engine/executor.h"

namespace tarn::engine {

struct ModelOptions {
  std::string model;         // a directory, or "fake"
  std::string served_name;   // empty: the directory's last component
  int block_tokens = 32;     // one value for all nodes of a cluster; a power of two, 16 to 256
  int threads = 0;           // of the CPU executor; 0: one for each CPU of the process
  std::string isa = "auto";  // auto, avx2, avx512, avx512_bf16: the same on all nodes that share KV
};

// A loaded model without pages. Thread-compatible.
class OpenedModel {
 public:
  virtual ~OpenedModel() = default;
  virtual const ModelInfo& info() const = 0;
  virtual const BlockLayout& layout() const = 0;
  // Once. `arena` outlives the executor, which keeps what it needs of this object.
  virtual absl::StatusOr<std::unique_ptr<ModelExecutor>> MakeExecutor(KvArena arena) = 0;
};

// Slow: reads and hashes the weights. INVALID_ARGUMENT, NOT_FOUND, DATA_LOSS, FAILED_PRECONDITION:
// name the option, file, field or tensor.
absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const ModelOptions& options);

// How many pages of `layout` fit in `bytes`. INVALID_ARGUMENT (names --kv-memory): fewer than
// `min_pages`.
absl::StatusOr<int> PagesIn(uint64_t bytes, const BlockLayout& layout, int min_pages = 4);

}  // namespace tarn::engine
