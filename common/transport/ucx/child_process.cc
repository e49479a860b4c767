#include "common/transport/ucx/child_process.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/runtime/real/real_event_loop.h"

namespace tarn {
namespace {

constexpr char kRoleFlag[] = "--child_role";
constexpr int kChildFd = 3;

absl::Status Gone() { return absl::UnavailableError("the other process has gone"); }

}  // namespace

Channel::~Channel() { close(fd_); }

absl::Status Channel::Send(const std::string& message) {
  const uint64_t size = message.size();
  const std::string bytes =
      std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + message;
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Gone();
    sent += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status Channel::ReceiveBytes(char* to, size_t size, absl::Time end) {
  while (size > 0) {
    pollfd poll_fd{fd_, POLLIN, 0};
    const absl::Duration left = std::max(end - SteadyNow(), absl::ZeroDuration());
    const int timeout = left > absl::Hours(1) ? -1 : static_cast<int>(left / absl::Milliseconds(1));
    const int ready = poll(&poll_fd, 1, timeout);
    if (ready == 0) return absl::DeadlineExceededError("no message from the other process");
    if (ready < 0) continue;
    const ssize_t n = recv(fd_, to, size, 0);
    if (n <= 0) return Gone();
    to += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Channel::Receive(absl::Duration timeout) {
  const absl::Time end = SteadyNow() + timeout;
  uint64_t size = 0;
  RETURN_IF_ERROR(ReceiveBytes(reinterpret_cast<char*>(&size), sizeof(size), end));
  std::string message(size, '\0');
  RETURN_IF_ERROR(ReceiveBytes(message.data(), size, end));
  return message;
}

absl::Status Channel::SendAddress(const PeerAddress& address) {
  RETURN_IF_ERROR(Send(address.worker));
  RETURN_IF_ERROR(Send(std::to_string(address.regions.size())));
  for (const std::string& region : address.regions) RETURN_IF_ERROR(Send(region));
  return absl::OkStatus();
}

absl::StatusOr<PeerAddress> Channel::ReceiveAddress(absl::Duration timeout) {
  PeerAddress address;
  ASSIGN_OR_RETURN(address.worker, Receive(timeout));
  ASSIGN_OR_RETURN(const std::string count, Receive(timeout));
  for (int i = 0; i < std::stoi(count); ++i) {
    ASSIGN_OR_RETURN(address.regions.emplace_back(), Receive(timeout));
  }
  return address;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::string& role) {
  int fds[2];
  PCHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  // Not at the number that it gets in the child, where dup2 onto itself would leave it CLOEXEC.
  const int theirs = fcntl(fds[1], F_DUPFD_CLOEXEC, kChildFd + 1);
  PCHECK(theirs >= 0);
  close(fds[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs, kChildFd);
  std::string self = "/proc/self/exe";
  std::string flag = absl::StrCat(kRoleFlag, "=", role);
  char* argv[] = {self.data(), flag.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, self.c_str(), &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(theirs);
  if (error != 0) {
    close(fds[0]);
    return absl::InternalError(absl::StrCat("cannot start a process: ", strerror(error)));
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, fds[0]));
}

ChildProcess::~ChildProcess() { Kill(); }

void ChildProcess::Signal(int signal) { PCHECK(kill(pid_, signal) == 0); }

void ChildProcess::Kill() {
  if (!Alive()) return;
  Signal(SIGKILL);
  PCHECK(waitpid(pid_, nullptr, 0) == pid_);
  reaped_ = true;
}

bool ChildProcess::Alive() {
  if (!reaped_) reaped_ = waitpid(pid_, nullptr, WNOHANG) == pid_;
  return !reaped_;
}

std::optional<ChildRole> ChildRole::FromArguments(int argc, char** argv) {
  const std::string prefix = absl::StrCat(kRoleFlag, "=");
  if (argc != 2 || std::strncmp(argv[1], prefix.c_str(), prefix.size()) != 0) return std::nullopt;
  return ChildRole{argv[1] + prefix.size(), std::make_unique<Channel>(kChildFd)};
}

}  // namespace tarn
