#include "common/runtime/task_queue.h"

#include <glog/logging.h>

#include <algorithm>

namespace tarn {

void TaskQueue::Post(absl::Time now, EventLoop::Task task) {
  posted_.push_back({now, ++last_sequence_, std::move(task)});
}

TimerId TaskQueue::PostAt(absl::Time now, absl::Time when, EventLoop::Task task) {
  when = std::max(when, now);
  const TimerId timer = ++last_sequence_;
  timers_.emplace(Key(when, timer), std::move(task));
  timer_times_.emplace(timer, when);
  return timer;
}

EventLoop::Task TaskQueue::Cancel(TimerId timer) {
  const auto found = timer_times_.find(timer);
  if (found == timer_times_.end()) return nullptr;
  auto node = timers_.extract(Key(found->second, timer));
  timer_times_.erase(found);
  return std::move(node.mapped());
}

bool TaskQueue::PostedIsFirst() const {
  if (posted_.empty()) return false;
  if (timers_.empty()) return true;
  return Key(posted_.front().when, posted_.front().sequence) < timers_.begin()->first;
}

absl::Time TaskQueue::NextTime() const {
  if (empty()) return absl::InfiniteFuture();
  return PostedIsFirst() ? posted_.front().when : timers_.begin()->first.first;
}

TaskQueue::Entry TaskQueue::PopFirst() {
  CHECK(!empty());
  if (PostedIsFirst()) {
    Entry entry = std::move(posted_.front());
    posted_.pop_front();
    return entry;
  }
  auto node = timers_.extract(timers_.begin());
  timer_times_.erase(node.key().second);
  return {node.key().first, node.key().second, std::move(node.mapped())};
}

std::vector<TaskQueue::Entry> TaskQueue::TakeDue(absl::Time now) {
  std::vector<Entry> due;
  due.reserve(posted_.size());
  while (!empty() && NextTime() <= now) due.push_back(PopFirst());
  return due;
}

}  // namespace tarn
