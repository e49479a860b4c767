#pragma once

// The thread that owns a UCX worker: it makes progress, runs commands, and sleeps when idle.
//
// Cores are shared with the executor, so it polls only for a short time after the last event and
// then waits on file descriptors (the worker's and one for commands). Private to ucx/.

#include <ucp/api/ucp.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace tarn {

class UcxThread {
 public:
  using Command = std::function<void()>;
  // Does one piece of the owner's own work; false: there was none.
  using Work = std::function<bool()>;

  // `worker` outlives this and is used by the thread only.
  // Work is asked at least every `wake_every`.
  UcxThread(ucp_worker_h worker, absl::Duration poll_time, absl::Duration wake_every, Work work);
  // Stops after the commands run that were posted so far.
  ~UcxThread();

  // Runs `command` on the thread, in order of posting. Thread-safe, does not block.
  void Post(Command command);
  // The same, and waits for its end. Not callable on the thread.
  void PostAndWait(const Command& command);

 private:
  void Run();
  bool RunCommands();
  void Sleep();

  const ucp_worker_h worker_;
  const absl::Duration poll_time_;
  const absl::Duration wake_every_;
  const Work work_;
  int worker_fd_ = -1;
  int command_fd_ = -1;

  Mutex mutex_;
  std::vector<Command> commands_ ABSL_GUARDED_BY(mutex_);
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;

  bool stopping_ = false;  // of the thread
  std::thread thread_;     // last: starts when all else is there
};

}  // namespace tarn
