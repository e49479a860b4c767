#pragma once

// What happens when: a heap by (time, order of scheduling). Equal calls give equal orders.

#include <algorithm>
#include <cstdint>
#include <queue>
#include <vector>

#include "absl/time/time.h"

namespace tarn::sim {

// `Payload` is a small value. Nothing is cancelled: who schedules numbers his events, and ignores
// those that have been overtaken.
template <typename Payload>
class EventQueue {
 public:
  void Schedule(absl::Time when, const Payload& payload) {
    heap_.push({std::max(when, now_), ++sequence_, payload});
  }

  bool empty() const { return heap_.empty(); }
  absl::Time now() const { return now_; }

  // Takes the first event; time goes on to it.
  Payload Next() {
    const Event event = heap_.top();
    heap_.pop();
    now_ = event.when;
    return event.payload;
  }

 private:
  struct Event {
    absl::Time when;
    uint64_t sequence;
    Payload payload;
    // The heap's top is its greatest.
    friend bool operator<(const Event& a, const Event& b) {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };
  std::priority_queue<Event> heap_;
  uint64_t sequence_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

}  // namespace tarn::sim
