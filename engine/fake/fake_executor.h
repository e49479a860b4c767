#pragma once

// An executor without a model: deterministic tokens at a modelled pace, for tests and for clusters
// of many nodes on one machine.
//
// It makes KV errors visible. Each new token's slot (its row in every tile of its page) is filled
// from a digest of the token, its position and every byte of every slot in front of it, read back
// from the pages. The sampled token is a hash of that chain at its end. So a wrong, stale, corrupt,
// missing or misplaced block changes all later tokens, and equal tokens prove that the KV was
// right.
//
// A step reads all KV of its sequences once, as attention does: choose a small layout.
// Thread-compatible: one caller at a time. Blocks only in Options::wait.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/memory/block_layout.h"
#include "engine/executor.h"

namespace tarn::engine {

// How long a step takes: a sum of these. All zero: no time.
struct FakePace {
  absl::Duration per_step;
  // New tokens of every sequence that is not one of decode.
  absl::Duration per_prefill_token;
  // Sequences with one new token that is not their first.
  absl::Duration per_decode_sequence;
  // Tokens that attention reads: those in front and the new ones, of every sequence.
  absl::Duration per_context_token;
};

// The modelled time of `batch`. Pure.
absl::Duration ModelledStepTime(const FakePace& pace, std::span<const StepSequence> batch);

struct FakeOptions {
  std::string name = "fake";
  BlockLayout layout;
  int vocab_size = 32000;  // at least 2
  int max_context = 8192;
  // Stands for the weights: another number is another model, with other tokens.
  uint64_t model_seed = 0;
  // The chance that a sampled token is `eos_token`; no other draw gives that token. -1: no such
  // token.
  TokenId eos_token = -1;
  double eos_probability = 0;
  FakePace pace;
  // Called once a step with its modelled time, after the work. Null: a step takes what it takes.
  std::function<void(absl::Duration)> wait;
};

class FakeExecutor final : public ModelExecutor {
 public:
  // `arena` outlives the executor. INVALID_ARGUMENT names the option out of range.
  static absl::StatusOr<std::unique_ptr<FakeExecutor>> Create(FakeOptions options, KvArena arena);

  const ModelInfo& model() const override { return model_; }
  const BlockLayout& layout() const override { return options_.layout; }

  // Beyond the seam's errors, INVALID_ARGUMENT also where a page that one sequence writes occurs
  // twice in the step, and where a sample's context is not as long as the sequence. An error leaves
  // all pages as they were. Greedy parameters ignore the seed; of the others only seed, min_tokens
  // and logprobs (made up) matter.
  absl::StatusOr<std::vector<StepOutput>> Step(std::span<const StepSequence> batch) override;

 private:
  FakeExecutor(FakeOptions options, KvArena arena);

  absl::Status Check(const StepSequence& sequence) const;
  absl::Status CheckSharing(std::span<const StepSequence> batch);
  StepOutput Run(const StepSequence& sequence);
  SampledToken Draw(const SampleRequest& request, uint64_t chain) const;
  // The row of `slot` (of block_tokens) in the first tile of `page`.
  std::byte* Row(PageIndex page, int slot) const;
  uint64_t HashSlot(PageIndex page, int slot) const;
  void FillSlot(PageIndex page, int slot, uint64_t digest);

  // Constant after construction.
  const FakeOptions options_;
  const KvArena arena_;
  ModelInfo model_;
  size_t row_bytes_ = 0;
  int tiles_ = 0;
  // Which page each step writes: the number of the step that last did. Caller's thread only.
  std::vector<uint64_t> written_in_;
  uint64_t step_ = 0;
};

}  // namespace tarn::engine
