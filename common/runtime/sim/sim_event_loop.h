#pragma once

// An EventLoop in virtual time, run by the caller: equal inputs give equal runs.

#include <cstddef>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/runtime/event_loop.h"
#include "common/runtime/task_queue.h"

namespace tarn {

// Time stands still while a task runs and jumps to the next task's due time in between. Run by the
// thread that made it, which counts as the loop also between tasks. Posting is thread-safe, but
// what other threads post makes runs differ.
class SimEventLoop : public EventLoop {
 public:
  explicit SimEventLoop(absl::Time start = absl::FromUnixSeconds(1'000'000'000));

  // Runs the first task, if there is one; time jumps forward to it.
  bool RunOne();
  // Runs until nothing is queued, timers included; returns how many tasks ran. Does not end while
  // tasks keep posting others (heartbeats): then use RunFor.
  size_t RunUntilIdle();
  // Runs what is due up to `end`; time is `end` afterwards.
  void RunUntil(absl::Time end);
  void RunFor(absl::Duration duration) { RunUntil(Now() + duration); }
  // Runs until `done` holds (asked before each task). False: it did not within `limit`, or nothing
  // is left that could make it so.
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit = absl::Hours(1));

  // Moves time forward without running anything; what is due by then runs late.
  void SetNow(absl::Time now);

  absl::Time Now() const override;
  void Post(Task task) override;
  TimerId PostAt(absl::Time when, Task task) override;
  void CancelTimer(TimerId timer) override;
  bool OnLoop() const override { return std::this_thread::get_id() == owner_; }

 private:
  // Runs the first task if it is due by `end`.
  bool RunNext(absl::Time end);

  const std::thread::id owner_ = std::this_thread::get_id();

  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  TaskQueue queue_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tarn
