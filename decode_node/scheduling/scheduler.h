#pragma once

// Which sequences a decode node computes in the next step, and when each of them ends.
//
// A pure brain (invariant I7): takes events and `now`, answers with what to do. It knows lengths
// and the end tokens, but no KV. Whoever drives it computes, and tells what was sampled.
// Thread-compatible.
//
//   Add ─► seated ─Start─► running ─OnStepDone─► ... ─► finished (forgotten)
//          KV comes        one token a step
//
// Every running sequence gets its token in every step. A sequence whose KV is behind its tokens (a
// block was lost) catches up beside them, in chunks of a bounded number of tokens, so that
// the others are slowed but never stalled.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "common/base/step_time.h"
#include "kvstore/sequence/token_range.h"

namespace tarn::decode {

using kvstore::TokenRange;

// Given by the scheduler in order of arrival, never again.
using SequenceId = StrongId<struct SequenceIdTag, uint64_t>;

enum class FinishReason : uint8_t { kStop, kLength };

struct SchedulerOptions {
  int max_batch = 64;         // seats: sequences running or waiting for their KV
  int catch_up_tokens = 256;  // of one step, over all sequences that are behind
};

struct SequenceLimits {
  int tokens = 0;                   // known at admission
  int max_new_tokens = 0;           // from there on; the context leaves room for them
  std::vector<TokenId> end_tokens;  // sorted
  absl::Time deadline;
};

// A part of one step.
struct StepItem {
  SequenceId sequence;
  TokenRange tokens;
  bool sample = false;  // the KV is up to date afterwards: draw the next token
  friend bool operator==(const StepItem&, const StepItem&) = default;
};

struct SchedulerLoad {
  int seated = 0;
  int running = 0;
  double step_us = 0;  // smoothed; 0: not yet measured
};

// The same and what takes longer to work out, for others to plan by.
struct SchedulerReport : SchedulerLoad {
  StepTime step_time;
  int64_t kv_tokens = 0;  // context of the running sequences
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);

  // Takes a seat. RESOURCE_EXHAUSTED: all are taken (says how many); see RetryHint.
  absl::StatusOr<SequenceId> Add(SequenceLimits limits);
  // When a seat will be free, as far as measured rates tell.
  absl::Duration RetryHint() const;

  // The first new token is known (somebody else has sent it). A reason: it was also the last, and
  // the sequence is forgotten. Otherwise it waits for Join.
  std::optional<FinishReason> Start(SequenceId sequence, TokenId first_token);
  // The sequence joins at the next step. `missing`: tokens without KV, ascending, the first new
  // token last among them.
  void Join(SequenceId sequence, std::vector<TokenRange> missing);

  // The next step, or nothing to do. No other step is under way.
  std::vector<StepItem> PlanStep();
  // The planned step is done in `elapsed`. Then tell each sampled token by OnSampled.
  void OnStepDone(absl::Duration elapsed);
  // The planned step failed. Its sequences stay where they were, for the caller to remove.
  void OnStepFailed();

  // For simulators, which know how long steps take: how many steps from here on are alike, one
  // token for each running sequence and the last one for none, if nobody joins or leaves.
  int AlikeSteps() const;
  // Does what so many rounds of PlanStep, OnStepDone and OnSampled would, with tokens that end
  // nothing. At most AlikeSteps(); no step is under way.
  void SkipSteps(std::span<const absl::Duration> elapsed);
  // Report() after so many more steps.
  SchedulerReport ReportAfter(std::span<const absl::Duration> elapsed) const;

  // A token was drawn for a running sequence. A reason: it was the last, and the sequence is
  // forgotten.
  std::optional<FinishReason> OnSampled(SequenceId sequence, TokenId token);

  // Forgets a sequence, in whatever state.
  void Remove(SequenceId sequence);
  // Forgets the sequences whose deadline has passed, in order of deadline.
  std::vector<SequenceId> TakeExpired(absl::Time now);
  // InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

  SchedulerLoad load() const;
  SchedulerReport Report() const { return ReportAfter({}); }

 private:
  // How long steps take.
  struct Pace {
    double step_us = 0;  // smoothed
    StepTimeFit step_time{StepTimeFit::Prior::kFixedCost};
    void Add(double tokens, double attended, absl::Duration elapsed);
  };
  // Counts steps that are alike, from now on.
  void AddAlike(std::span<const absl::Duration> elapsed, Pace& pace) const;

  struct Sequence {
    SequenceLimits limits;
    int generated = 0;
    bool running = false;
    std::vector<TokenRange> missing;  // while running: at least the newest token
    int missing_tokens = 0;
  };

  Sequence& Get(SequenceId sequence);
  // Counts a new token; whether and why it was the last.
  std::optional<FinishReason> Count(SequenceId id, Sequence& sequence, TokenId token);
  StepItem NextItem(SequenceId id, const Sequence& sequence, int budget) const;
  static int ContextOf(const Sequence& sequence) {
    return sequence.limits.tokens + sequence.generated;
  }
  static void Advance(Sequence& sequence, TokenRange done);

  const SchedulerOptions options_;
  uint64_t last_id_ = 0;
  std::map<SequenceId, Sequence> sequences_;
  int running_ = 0;
  std::set<std::pair<absl::Time, SequenceId>> deadlines_;
  std::vector<StepItem> step_;  // the planned one, while it runs
  Pace pace_;
};

}  // namespace tarn::decode
