#pragma once

// Lets main wait for SIGTERM or SIGINT and shut down in order.

#include <thread>

#include "common/base/mutex.h"

namespace tarn {

// Construct it before any other thread exists: the signals are blocked in the threads that start
// later, and taken by one thread inside. A second signal ends the process at once with code
// 128 + signal, so a shut-down that hangs can be broken off.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Blocks until a signal arrives or Request is called; returns the signal's number, or 0.
  int Wait();

  // Ends Wait from inside the process. Callable from any thread.
  void Request();

 private:
  void Watch();

  int signal_fd_;
  int stop_fd_;
  Mutex mutex_;
  ConditionVariable changed_;
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  int signal_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace tarn
