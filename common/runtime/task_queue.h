#pragma once

// Closures in order of (time, posting): what both event loops are made of.
// Not thread-safe.

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/runtime/event_loop.h"

namespace tarn {

class TaskQueue {
 public:
  struct Entry {
    absl::Time when;
    uint64_t sequence = 0;  // of posting; the TimerId of a timer
    EventLoop::Task task;
  };

  // `now` never decreases from call to call, over both. A timer in the past counts as due now, so
  // it does not overtake what was posted before it.
  void Post(absl::Time now, EventLoop::Task task);
  TimerId PostAt(absl::Time now, absl::Time when, EventLoop::Task task);

  // The timer's task, for the caller to destroy outside its lock; empty if there is no such timer.
  EventLoop::Task Cancel(TimerId timer);

  bool empty() const { return posted_.empty() && timers_.empty(); }
  // Due time of the first task, InfiniteFuture if there is none.
  absl::Time NextTime() const;

  // Removes the first task, which exists.
  Entry PopFirst();
  // Removes all tasks due at `now`, in order.
  std::vector<Entry> TakeDue(absl::Time now);

 private:
  using Key = std::pair<absl::Time, uint64_t>;

  bool PostedIsFirst() const;

  uint64_t last_sequence_ = 0;
  // Sorted by construction; kept out of the tree because most tasks come this way.
  std::deque<Entry> posted_;
  std::map<Key, EventLoop::Task> timers_;
  absl::flat_hash_map<TimerId, absl::Time> timer_times_;
};

}  // namespace tarn
