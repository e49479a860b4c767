#pragma once

// An EventLoop that is a thread, and the machine's steady clock.

#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/runtime/event_loop.h"
#include "common/runtime/task_queue.h"

namespace tarn {

// The time that all RealEventLoops of the process share: the wall clock read once, then advanced by
// the steady clock, so that it neither jumps nor goes backwards.
absl::Time SteadyNow();

class RealEventLoop : public EventLoop {
 public:
  // Starts the thread. `name` is what debuggers and top show, cut to 15 characters.
  explicit RealEventLoop(const std::string& name);
  // Stops.
  ~RealEventLoop() override;

  // Lets the running task end, then joins the thread. Tasks that have not run are destroyed on the
  // caller's thread. Not callable on the loop; idempotent.
  void Stop();

  absl::Time Now() const override { return SteadyNow(); }
  void Post(Task task) override;
  TimerId PostAt(absl::Time when, Task task) override;
  void CancelTimer(TimerId timer) override;
  bool OnLoop() const override;

 private:
  void Run();
  // Waits for due tasks; empty when stopping.
  std::vector<TaskQueue::Entry> NextBatch();
  void RunBatch(std::vector<TaskQueue::Entry> batch);
  void SleepUntil(absl::Time when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  ConditionVariable wake_;
  TaskQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // Loop only: timers of the running batch that one of its tasks has cancelled.
  absl::flat_hash_set<TimerId> cancelled_in_batch_;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace tarn
