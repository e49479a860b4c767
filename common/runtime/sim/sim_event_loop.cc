#include "common/runtime/sim/sim_event_loop.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace tarn {

SimEventLoop::SimEventLoop(absl::Time start) : now_(start) {}

bool SimEventLoop::RunNext(absl::Time end) {
  CHECK(OnLoop()) << "a simulated loop is run by the thread that made it";
  Task task;
  {
    MutexLock lock(mutex_);
    const absl::Time next = queue_.NextTime();
    if (next > end || next == absl::InfiniteFuture()) return false;
    TaskQueue::Entry entry = queue_.PopFirst();
    now_ = std::max(now_, entry.when);
    task = std::move(entry.task);
  }
  task();
  return true;
}

bool SimEventLoop::RunOne() { return RunNext(absl::InfiniteFuture()); }

size_t SimEventLoop::RunUntilIdle() {
  size_t count = 0;
  while (RunOne()) ++count;
  return count;
}

void SimEventLoop::RunUntil(absl::Time end) {
  while (RunNext(end)) {
  }
  if (end != absl::InfiniteFuture()) SetNow(std::max(end, Now()));
}

bool SimEventLoop::RunUntil(const std::function<bool()>& done, absl::Duration limit) {
  const absl::Time end = Now() + limit;
  while (!done()) {
    if (!RunNext(end)) return false;
  }
  return true;
}

void SimEventLoop::SetNow(absl::Time now) {
  MutexLock lock(mutex_);
  CHECK_GE(now, now_) << "time does not go backwards";
  now_ = now;
}

absl::Time SimEventLoop::Now() const {
  MutexLock lock(mutex_);
  return now_;
}

void SimEventLoop::Post(Task task) {
  MutexLock lock(mutex_);
  queue_.Post(now_, std::move(task));
}

TimerId SimEventLoop::PostAt(absl::Time when, Task task) {
  MutexLock lock(mutex_);
  return queue_.PostAt(now_, when, std::move(task));
}

void SimEventLoop::CancelTimer(TimerId timer) {
  Task cancelled;
  MutexLock lock(mutex_);
  cancelled = queue_.Cancel(timer);
}

}  // namespace tarn
