#include "common/transport/tcp/tcp_thread.h"

#include <glog/logging.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"

namespace tarn {

TcpThread::TcpThread(const std::string& name) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  command_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  PCHECK(epoll_fd_ >= 0 && command_fd_ >= 0);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  PCHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, command_fd_, &event) == 0);
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), name.c_str());
}

TcpThread::~TcpThread() {
  Post([this] { stopping_ = true; });
  thread_.join();
  CHECK(watched_.empty());
  close(command_fd_);
  close(epoll_fd_);
}

void TcpThread::Post(Command command) {
  MutexLock lock(mutex_);
  commands_.push_back(std::move(command));
  if (commands_.size() > 1) return;
  const uint64_t one = 1;
  PCHECK(write(command_fd_, &one, sizeof(one)) == sizeof(one));
}

void TcpThread::PostAndWait(const Command& command) {
  tarn::PostAndWait([this](Command posted) { Post(std::move(posted)); }, command);
}

void TcpThread::Watch(int fd, uint32_t events, Handler* handler) {
  const auto [found, is_new] = ids_.try_emplace(fd, last_id_ + 1);
  if (is_new) ++last_id_;
  watched_[found->second] = {fd, handler};
  epoll_event event{.events = events, .data = {.u64 = found->second}};
  PCHECK(epoll_ctl(epoll_fd_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) == 0);
}

void TcpThread::Unwatch(int fd) {
  const auto found = ids_.find(fd);
  if (found == ids_.end()) return;
  watched_.erase(found->second);
  ids_.erase(found);
  PCHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr) == 0);
}

void TcpThread::Again(int fd) { again_.push_back(ids_.at(fd)); }

void TcpThread::Run() {
  next_tick_ = SteadyNow() + kTick;
  epoll_event events[64];
  while (!stopping_) {
    const absl::Duration left = std::max(next_tick_ - SteadyNow(), absl::ZeroDuration());
    const int timeout = again_.empty() ? static_cast<int>(absl::ToInt64Milliseconds(left)) + 1 : 0;
    const int count = epoll_wait(epoll_fd_, events, std::size(events), timeout);
    PCHECK(count >= 0 || errno == EINTR);
    std::vector<uint64_t> again = std::exchange(again_, {});
    RunCommands();
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 != 0) Call(events[i].data.u64, events[i].events);
    }
    for (const uint64_t id : again) Call(id, 0);
    if (SteadyNow() >= next_tick_) Tick();
  }
}

void TcpThread::RunCommands() {
  std::vector<Command> commands;
  {
    MutexLock lock(mutex_);
    if (commands_.empty()) return;
    commands.swap(commands_);
    uint64_t ignored;
    PCHECK(read(command_fd_, &ignored, sizeof(ignored)) == sizeof(ignored));
  }
  for (const Command& command : commands) command();
}

void TcpThread::Call(uint64_t id, uint32_t events) {
  RunCommands();
  const auto found = watched_.find(id);
  if (found != watched_.end()) found->second.handler->OnReady(events);
}

void TcpThread::Tick() {
  next_tick_ = SteadyNow() + kTick;
  for (const Command& command : on_tick_) command();
}

}  // namespace tarn
