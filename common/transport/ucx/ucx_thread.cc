#include "common/transport/ucx/ucx_thread.h"

#include <glog/logging.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"

namespace tarn {

UcxThread::UcxThread(ucp_worker_h worker, absl::Duration poll_time, absl::Duration wake_every,
                     Work work)
    : worker_(worker), poll_time_(poll_time), wake_every_(wake_every), work_(std::move(work)) {
  CHECK_EQ(ucp_worker_get_efd(worker_, &worker_fd_), UCS_OK);
  command_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  PCHECK(command_fd_ >= 0) << "eventfd";
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "ucx");
}

UcxThread::~UcxThread() {
  Post([this] { stopping_ = true; });
  thread_.join();
  close(command_fd_);
}

void UcxThread::Post(Command command) {
  MutexLock lock(mutex_);
  commands_.push_back(std::move(command));
  if (std::exchange(sleeping_, false)) {
    const uint64_t one = 1;
    PCHECK(write(command_fd_, &one, sizeof(one)) == sizeof(one));
  }
}

void UcxThread::PostAndWait(const Command& command) {
  tarn::PostAndWait([this](Command posted) { Post(std::move(posted)); }, command);
}

void UcxThread::Run() {
  absl::Time last_event = SteadyNow();
  while (!stopping_) {
    bool active = RunCommands();
    active |= work_();
    active |= ucp_worker_progress(worker_) != 0;
    if (active) {
      last_event = SteadyNow();
    } else if (SteadyNow() - last_event > poll_time_) {
      Sleep();
    }
  }
}

bool UcxThread::RunCommands() {
  std::vector<Command> commands;
  {
    MutexLock lock(mutex_);
    commands.swap(commands_);
  }
  for (const Command& command : commands) command();
  return !commands.empty();
}

void UcxThread::Sleep() {
  // Busy: something arrived since the last progress.
  if (ucp_worker_arm(worker_) != UCS_OK) return;
  {
    MutexLock lock(mutex_);
    if (!commands_.empty()) return;
    sleeping_ = true;
  }
  pollfd fds[] = {{worker_fd_, POLLIN, 0}, {command_fd_, POLLIN, 0}};
  poll(fds, 2, static_cast<int>(absl::ToInt64Milliseconds(wake_every_)));
  {
    MutexLock lock(mutex_);
    sleeping_ = false;
  }
  uint64_t ignored;
  if (read(command_fd_, &ignored, sizeof(ignored)) < 0) PCHECK(errno == EAGAIN);
}

}  // namespace tarn
