#pragma once

// One thread's worth of work: closures run one after another, in order of (time, posting).
//
// Everything of a session or server that is not a brain lives on one loop, so it needs no lock.
// Other threads (gRPC, transport, the executor's) hand over what happened by Post.
// Two implementations: runtime/real (a thread and its clock) and runtime/sim (virtual time, run by
// the test or simulator, deterministic).

#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "common/runtime/clock.h"

namespace tarn {

// Names a timer; 0 names none.
using TimerId = uint64_t;

class EventLoop : public Clock {
 public:
  using Task = std::function<void()>;

  // Runs `task` on the loop, later than this call. Callable from any thread; does not block.
  // What is posted after the loop has stopped is destroyed without having run.
  virtual void Post(Task task) = 0;

  // Runs `task` at `when` (at once if that has passed). Equal times: order of posting decides.
  virtual TimerId PostAt(absl::Time when, Task task) = 0;

  // Forgets a timer; harmless when it has run. Only a call on the loop is sure to be in time.
  virtual void CancelTimer(TimerId timer) = 0;

  // Whether the caller runs on the loop.
  virtual bool OnLoop() const = 0;

  TimerId PostAfter(absl::Duration delay, Task task) {
    return PostAt(Now() + delay, std::move(task));
  }
};

}  // namespace tarn
