#pragma once

// Which prompts a prefill node computes next: a queue by (priority, arrival), and steps of a fixed
// number of tokens, filled with chunks of as many prompts as fit.
//
// A pure brain (invariant I7): takes events and `now`, answers with what to do. It knows no pages,
// tokens or streams: whoever drives it reserves, fetches, computes, and tells. Thread-compatible.
//
//   Add ─► waiting ─OnReserved─► fetching ─OnFetched─► computing ─OnStepDone─► handing over
//                      Remove, TakeExpired and OnStepFailed: from any state out
//
// First come, first served within a priority, also for pages: a long prompt that waits for them is
// not overtaken, so it cannot starve.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/base/step_time.h"
#include "kvstore/sequence/token_range.h"

namespace tarn::prefill {

using kvstore::TokenRange;

// Given by the batcher in order of arrival, never again.
using JobId = StrongId<struct JobIdTag, uint64_t>;

struct BatcherOptions {
  int chunk_tokens = 512;  // new tokens of one step, over all its prompts
  int max_running = 64;    // fetching or computing
  int max_waiting = 1024;  // beyond it, new ones are refused
};

struct JobSpec {
  int tokens = 0;                   // of the whole prompt
  int expected_cached = 0;          // of them, that OnFetched will probably not name
  int priority = 0;                 // lower first
  absl::Time deadline;              // of the computation
  absl::Duration handover_timeout;  // from its end
};

enum class JobState : uint8_t { kWaiting, kFetching, kComputing, kHandingOver };

// A part of one step: the next tokens of one prompt.
struct Chunk {
  JobId job;
  TokenRange tokens;
  bool last = false;  // nothing is missing afterwards: sample
  friend bool operator==(const Chunk&, const Chunk&) = default;
};

struct ExpiredJob {
  JobId job;
  JobState state;
};

struct BatcherLoad {
  int waiting = 0;
  int running = 0;
  int handing_over = 0;
  int64_t waiting_tokens = 0;  // still to compute, of all jobs
  double us_per_token = 0;     // smoothed over steps; 0: not yet measured
};

// The same and what takes longer to work out, for others to plan by.
struct BatcherReport : BatcherLoad {
  double waiting_attended = 0;  // by the waiting tokens, see StepTime
  StepTime step_time;
};

class Batcher {
 public:
  explicit Batcher(BatcherOptions options);

  // Queues a prompt. RESOURCE_EXHAUSTED: the queue is full (says how full); see RetryHint.
  absl::StatusOr<JobId> Add(const JobSpec& spec);
  // When the queue will have moved on, as far as measured rates tell.
  absl::Duration RetryHint() const;

  // The job whose pages are to be reserved now, if one may start. Answer with OnReserved, or ask
  // again when pages may have come free.
  std::optional<JobId> NextToReserve() const;
  void OnReserved(JobId job);

  // What is missing after the fetch: ascending, not empty, up to the prompt's last token.
  void OnFetched(JobId job, std::vector<TokenRange> missing);

  // The next step, or nothing to do. No other step is under way.
  std::vector<Chunk> PlanStep();
  // The planned step took `elapsed`. Jobs of it that were removed meanwhile are ignored. Those that
  // have become complete are handing over from `now` on.
  void OnStepDone(absl::Duration elapsed, absl::Time now);
  // The planned step failed. Its jobs stay where they were, for the caller to remove.
  void OnStepFailed();

  // Forgets a job, in whatever state.
  void Remove(JobId job);

  // Forgets the jobs whose deadline has passed, in order of deadline.
  std::vector<ExpiredJob> TakeExpired(absl::Time now);
  // InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

  BatcherLoad load() const;
  BatcherReport Report() const;

 private:
  struct Job {
    JobSpec spec;
    JobState state = JobState::kWaiting;
    absl::Time deadline;              // of this state
    std::vector<TokenRange> missing;  // from kComputing on
    int missing_tokens = 0;           // until then: what is expected
    double missing_attended = 0;
  };
  // Jobs that compete: lower priority value first, then arrival.
  using Queue = std::set<std::pair<int, JobId>>;

  Job& Get(JobId job);
  void ForgetMissing(Job& job);
  void Leave(JobId id, Job& job);
  void SetDeadline(JobId id, Job& job, absl::Time deadline);
  void Advance(JobId id, Job& job, TokenRange done, absl::Time now);
  // Counts tokens that the job has, or no longer has, to compute.
  void CountMissing(Job& job, TokenRange range, int sign);
  int running() const { return fetching_ + static_cast<int>(computing_.size()); }

  const BatcherOptions options_;
  uint64_t last_id_ = 0;
  std::map<JobId, Job> jobs_;
  Queue waiting_;
  Queue computing_;
  int fetching_ = 0;
  int64_t missing_tokens_ = 0;  // of all jobs
  double missing_attended_ = 0;
  std::set<std::pair<absl::Time, JobId>> deadlines_;
  std::vector<Chunk> step_;  // the planned one, while it runs
  double us_per_token_ = 0;
  StepTimeFit step_time_{StepTimeFit::Prior::kWork};
};

}  // namespace tarn::prefill
