#include "common/config/signals.h"

#include <glog/logging.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace tarn {
namespace {

sigset_t ShutdownSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  const sigset_t set = ShutdownSignals();
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, nullptr), 0);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  PCHECK(signal_fd_ >= 0 && stop_fd_ >= 0);
  thread_ = std::thread([this] { Watch(); });
}

ShutdownSignal::~ShutdownSignal() {
  const uint64_t one = 1;
  PCHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(signal_fd_);
  close(stop_fd_);
}

int ShutdownSignal::Wait() {
  MutexLock lock(mutex_);
  while (!requested_) changed_.wait(mutex_);
  return signal_;
}

void ShutdownSignal::Request() {
  MutexLock lock(mutex_);
  requested_ = true;
  changed_.notify_all();
}

void ShutdownSignal::Watch() {
  pollfd fds[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while (true) {
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    MutexLock lock(mutex_);
    // Not exit: destructors may be what hangs.
    if (signal_ != 0) _exit(128 + signal);
    LOG(INFO) << "Shutting down on signal " << signal << "; a second one ends the process at once";
    signal_ = signal;
    requested_ = true;
    changed_.notify_all();
  }
}

}  // namespace tarn
