#pragma once

// Runs an executor's steps without blocking the loop that plans them.
//
// One job at a time: the loop submits, the executor's thread computes the step, then seals the
// blocks that the step completed (a checksum over the payload, while it is in cache), and `done`
// runs on the loop. Two implementations: a thread (servers), and the loop itself in modelled time
// (tests and simulator, deterministic).
//
// Loop-only, but for Stop. Nothing here blocks, but for Stop. The executor and the loop outlive the
// runner.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/memory/block_header.h"
#include "common/runtime/event_loop.h"
#include "engine/executor.h"

namespace tarn::engine {

// A block whose payload the step completes. The page is held and private until the job is done.
struct BlockSeal {
  BlockIdentity identity;
  std::span<std::byte> page;
};

// What the sequences point to (tokens, pages, parameters) stays as it is until the job is done.
struct StepJob {
  std::vector<StepSequence> sequences;
  std::vector<BlockSeal> seals;  // written only if the step succeeds
};

struct StepResult {
  absl::StatusOr<std::vector<StepOutput>> outputs;
  absl::Duration elapsed;  // of the step and its seals
};

class StepRunner {
 public:
  using Done = std::function<void(StepResult)>;
  virtual ~StepRunner() = default;

  // Starts a job; none is under way. `done` runs later than this call, unless Stop comes first.
  virtual void Submit(StepJob job, Done done) = 0;

  // Whether a job is under way.
  virtual bool busy() const = 0;

  // Waits for the step under way; no `done` runs afterwards, and nothing may be submitted. After it
  // what a job pointed to may go. From any thread, once the loop submits nothing more; idempotent.
  virtual void Stop() = 0;
};

// A thread of its own.
std::unique_ptr<StepRunner> MakeThreadStepRunner(ModelExecutor* executor, EventLoop* loop);

// How long a step takes, by the number of its new tokens.
using StepPace = std::function<absl::Duration(int tokens)>;

// Computes on the loop, at the end of the step's modelled time.
std::unique_ptr<StepRunner> MakeInlineStepRunner(ModelExecutor* executor, EventLoop* loop,
                                                 StepPace pace);

}  // namespace tarn::engine
