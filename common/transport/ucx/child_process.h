#pragma once

// This program once more, as a process of its own, with a channel to it. For tests and benchmarks
// of what crosses processes.
//
// The program's main() looks at FromArguments first: in the child it returns the other end of the
// channel. A child whose parent has gone sees its channel end, and should exit then.

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/transport/transport.h"

namespace tarn {

// Messages between two processes, in order. Not thread-safe. Closed when destroyed.
class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // UNAVAILABLE: the other side has gone.
  absl::Status Send(const std::string& message);
  // Blocks. UNAVAILABLE: the other side has gone. DEADLINE_EXCEEDED.
  absl::StatusOr<std::string> Receive(absl::Duration timeout);

  absl::Status SendAddress(const PeerAddress& address);
  absl::StatusOr<PeerAddress> ReceiveAddress(absl::Duration timeout);

 private:
  absl::Status ReceiveBytes(char* to, size_t size, absl::Time end);

  const int fd_;
};

class ChildProcess {
 public:
  // `role` is for the child's main to tell what it is.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& role);
  // Kills it if it runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  Channel& channel() { return *channel_; }

  void Signal(int signal);
  // SIGKILL, and waits until the process has gone. Idempotent.
  void Kill();
  // Whether it has not ended by itself.
  bool Alive();

 private:
  ChildProcess(pid_t pid, int fd) : pid_(pid), channel_(std::make_unique<Channel>(fd)) {}

  const pid_t pid_;
  std::unique_ptr<Channel> channel_;
  bool reaped_ = false;
};

// In the child: what it was started as, and its end of the channel.
struct ChildRole {
  std::string role;
  std::unique_ptr<Channel> channel;

  // Empty in a program that ChildProcess has not started.
  static std::optional<ChildRole> FromArguments(int argc, char** argv);
};

}  // namespace tarn
