#include "engine/runner/step_runner.h"

#include <glog/logging.h>

#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"

namespace tarn::engine {
namespace {

absl::StatusOr<std::vector<StepOutput>> RunJob(ModelExecutor& executor, const StepJob& job) {
  auto outputs = executor.Step(job.sequences);
  if (!outputs.ok()) return outputs;
  if (outputs->size() != job.sequences.size()) {
    return absl::InternalError("the executor gave another number of outputs than sequences");
  }
  for (const BlockSeal& seal : job.seals) SealBlock(executor.layout(), seal.identity, seal.page);
  return outputs;
}

int NewTokens(const StepJob& job) {
  int tokens = 0;
  for (const StepSequence& sequence : job.sequences) {
    tokens += static_cast<int>(sequence.tokens.size());
  }
  return tokens;
}

class ThreadStepRunner : public StepRunner {
 public:
  ThreadStepRunner(ModelExecutor* executor, EventLoop* loop)
      : executor_(executor), loop_(loop), thread_([this] { Run(); }) {}
  ~ThreadStepRunner() override { Stop(); }

  void Submit(StepJob job, Done done) override {
    CHECK(!state_->busy) << "a step is under way";
    state_->busy = true;
    MutexLock lock(mutex_);
    CHECK(!stopping_) << "the runner has stopped";
    next_ = Work{std::move(job), std::move(done)};
    wake_.notify_one();
  }

  bool busy() const override { return state_->busy; }

  void Stop() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Work {
    StepJob job;
    Done done;
  };
  // Outlives the runner in what was posted to the loop.
  struct LoopState {
    bool busy = false;
    Mutex mutex;
    bool stopped ABSL_GUARDED_BY(mutex) = false;
  };

  std::optional<Work> Take() {
    MutexLock lock(mutex_);
    while (!next_ && !stopping_) wake_.wait(mutex_);
    if (stopping_) return std::nullopt;
    return std::exchange(next_, std::nullopt);
  }

  void Run() {
    while (std::optional<Work> work = Take()) {
      const absl::Time start = loop_->Now();
      StepResult result{.outputs = RunJob(*executor_, work->job)};
      result.elapsed = loop_->Now() - start;
      loop_->Post(
          [state = state_, done = std::move(work->done), result = std::move(result)]() mutable {
            state->busy = false;
            {
              MutexLock lock(state->mutex);
              if (state->stopped) return;
            }
            done(std::move(result));
          });
    }
    MutexLock lock(state_->mutex);
    state_->stopped = true;
  }

  ModelExecutor* const executor_;
  EventLoop* const loop_;
  const std::shared_ptr<LoopState> state_ = std::make_shared<LoopState>();

  Mutex mutex_;
  ConditionVariable wake_;
  std::optional<Work> next_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: starts when all else is there
};

class InlineStepRunner : public StepRunner {
 public:
  InlineStepRunner(ModelExecutor* executor, EventLoop* loop, StepPace pace)
      : executor_(executor), loop_(loop), pace_(std::move(pace)) {}
  ~InlineStepRunner() override { Stop(); }

  void Submit(StepJob job, Done done) override {
    CHECK_EQ(timer_, 0u) << "a step is under way";
    const absl::Duration elapsed = pace_(NewTokens(job));
    timer_ = loop_->PostAfter(elapsed, [this, elapsed, job = std::move(job), done] {
      timer_ = 0;
      done(StepResult{.outputs = RunJob(*executor_, job), .elapsed = elapsed});
    });
  }

  bool busy() const override { return timer_ != 0; }

  void Stop() override {
    loop_->CancelTimer(timer_);
    timer_ = 0;
  }

 private:
  ModelExecutor* const executor_;
  EventLoop* const loop_;
  const StepPace pace_;
  TimerId timer_ = 0;
};

}  // namespace

std::unique_ptr<StepRunner> MakeThreadStepRunner(ModelExecutor* executor, EventLoop* loop) {
  return std::make_unique<ThreadStepRunner>(executor, loop);
}

std::unique_ptr<StepRunner> MakeInlineStepRunner(ModelExecutor* executor, EventLoop* loop,
                                                 StepPace pace) {
  return std::make_unique<InlineStepRunner>(executor, loop, std::move(pace));
}

}  // namespace tarn::engine
