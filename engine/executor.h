#pragma once

// The seam between whoever schedules and whoever computes.
//
// A step is a list of sequences, each with some new tokens at some position and the pages that hold
// its KV. Prefill, chunked prefill, decode and a prefix hit are the same call with other numbers.
// The executor writes K and V of the new tokens into the pages and samples where asked; it keeps no
// state between steps, so a sequence can go on anywhere its blocks are.
//
// Exact (invariant I1): what a sequence gets does not depend on the rest of the batch, on how its
// prompt was cut into steps, or on which pages hold its KV.
// Implementations: cpu/, fake/ (and cuda/, AFD).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"
#include "common/memory/block_layout.h"
#include "engine/sampling/sampling.h"

namespace tarn::engine {

// A page of the executor's arena.
using PageIndex = int32_t;

// The memory that the executor's pages lie in: `page_count` pages of layout.page_bytes() each, one
// after another from `base`. Owned by the node (allocated through its transport, so that peers can
// read blocks in place); outlives the executor. The executor touches payloads only, never headers.
struct KvArena {
  std::byte* base = nullptr;
  int page_count = 0;
};

// What everyone but the executor needs to know of a model.
struct ModelInfo {
  std::string name;          // as served, e.g. "qwen3-0.6b"
  uint64_t fingerprint = 0;  // weights, config and the executor's numerics: see BlockDomain
  int vocab_size = 0;        // rows of the head; token ids are below it
  int max_context = 0;       // tokens of prompt and answer together
  std::string device;        // "cpu avx512_bf16, 2 threads"
  int64_t parameter_bytes = 0;
};

// What to sample after a sequence's last new token.
struct SampleRequest {
  const SamplingParams* params = nullptr;
  // All tokens of the sequence up to and including this step's new ones.
  std::span<const TokenId> context;
  // How many of them are the prompt (penalties treat the rest as output).
  int prompt_length = 0;
};

struct StepSequence {
  std::span<const TokenId> tokens;  // new tokens: at least one
  int position = 0;                 // of tokens[0]: how many tokens have KV already
  // pages[i] holds positions [i * block_tokens, (i + 1) * block_tokens); covers all tokens up to
  // and including the new ones. Pages below `position` are only read.
  std::span<const PageIndex> pages;
  std::optional<SampleRequest> sample;
};

struct StepOutput {
  std::optional<SampledToken> sampled;  // present exactly where a sample was asked for
};

class ModelExecutor {
 public:
  virtual ~ModelExecutor() = default;

  virtual const ModelInfo& model() const = 0;
  virtual const BlockLayout& layout() const = 0;

  // Runs one step; one output for each sequence, in order. Blocks until done. One caller at a time.
  // Two sequences of a step may share pages only where both just read them.
  // INVALID_ARGUMENT (names the sequence): token or page out of range, too few pages, too long.
  virtual absl::StatusOr<std::vector<StepOutput>> Step(std::span<const StepSequence> batch) = 0;
};

}  // namespace tarn::engine
