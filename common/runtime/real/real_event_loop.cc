#include "common/runtime/real/real_event_loop.h"

#include <glog/logging.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"

namespace tarn {
namespace {

thread_local const RealEventLoop* current_loop = nullptr;

}  // namespace

absl::Time SteadyNow() {
  using std::chrono::steady_clock;
  static const steady_clock::time_point start = steady_clock::now();
  static const absl::Time wall = absl::Now();
  return wall + absl::FromChrono(steady_clock::now() - start);
}

RealEventLoop::RealEventLoop(const std::string& name) : thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

RealEventLoop::~RealEventLoop() { Stop(); }

void RealEventLoop::Stop() {
  CHECK(!OnLoop()) << "a loop cannot wait for its own end";
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  TaskQueue left;
  {
    MutexLock lock(mutex_);
    std::swap(left, queue_);
  }
}

void RealEventLoop::Post(Task task) {
  MutexLock lock(mutex_);
  if (stopping_) return;  // The caller's argument dies after the lock.
  queue_.Post(Now(), std::move(task));
  if (std::exchange(sleeping_, false)) wake_.notify_one();
}

TimerId RealEventLoop::PostAt(absl::Time when, Task task) {
  MutexLock lock(mutex_);
  if (stopping_) return 0;
  const TimerId timer = queue_.PostAt(Now(), when, std::move(task));
  if (std::exchange(sleeping_, false)) wake_.notify_one();
  return timer;
}

void RealEventLoop::CancelTimer(TimerId timer) {
  if (timer == 0) return;
  Task cancelled;
  {
    MutexLock lock(mutex_);
    cancelled = queue_.Cancel(timer);
  }
  if (!cancelled && OnLoop()) cancelled_in_batch_.insert(timer);
}

bool RealEventLoop::OnLoop() const { return current_loop == this; }

void RealEventLoop::Run() {
  current_loop = this;
  for (auto batch = NextBatch(); !batch.empty(); batch = NextBatch()) RunBatch(std::move(batch));
}

std::vector<TaskQueue::Entry> RealEventLoop::NextBatch() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    if (auto batch = queue_.TakeDue(Now()); !batch.empty()) return batch;
    SleepUntil(queue_.NextTime());
  }
  return {};
}

void RealEventLoop::SleepUntil(absl::Time when) {
  // The standard library overflows on a sleep into the far future.
  const absl::Duration sleep = std::min(when - Now(), absl::Hours(1));
  sleeping_ = true;
  wake_.wait_for(mutex_, absl::ToChronoNanoseconds(sleep));
  sleeping_ = false;
}

void RealEventLoop::RunBatch(std::vector<TaskQueue::Entry> batch) {
  for (TaskQueue::Entry& entry : batch) {
    Task task = std::move(entry.task);
    if (!cancelled_in_batch_.contains(entry.sequence)) task();
  }
  cancelled_in_batch_.clear();
}

}  // namespace tarn
