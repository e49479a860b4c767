#include "common/transport/verbs/port_watcher.h"

#include <glog/logging.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/base/status.h"
#include "common/transport/verbs/verbs_source.h"

namespace tarn {

const char* ToString(RdmaPortEvent::Kind kind) {
  switch (kind) {
    case RdmaPortEvent::Kind::kActive:
      return "active";
    case RdmaPortEvent::Kind::kError:
      return "down";
    case RdmaPortEvent::Kind::kAddressChanged:
      return "under another address";
    case RdmaPortEvent::Kind::kDeviceLost:
      return "lost with its device";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<RdmaPortWatcher>> RdmaPortWatcher::Start(
    const std::vector<std::string>& devices, Listener listener) {
  const auto source = SystemVerbs();
  return Start(*source, devices, std::move(listener));
}

absl::StatusOr<std::unique_ptr<RdmaPortWatcher>> RdmaPortWatcher::Start(
    VerbsSource& source, const std::vector<std::string>& devices, Listener listener) {
  std::vector<Watched> watched;
  for (const std::string& device : devices) {
    ASSIGN_OR_RETURN(auto events, source.OpenEvents(device));
    watched.push_back({device, std::move(events)});
  }
  return std::unique_ptr<RdmaPortWatcher>(
      new RdmaPortWatcher(std::move(watched), std::move(listener)));
}

RdmaPortWatcher::RdmaPortWatcher(std::vector<Watched> watched, Listener listener)
    : listener_(std::move(listener)), watched_(std::move(watched)) {
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  PCHECK(stop_fd_ >= 0) << "eventfd";
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "rdma-ports");
}

RdmaPortWatcher::~RdmaPortWatcher() {
  const uint64_t one = 1;
  PCHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(stop_fd_);
}

void RdmaPortWatcher::Run() {
  while (true) {
    std::vector<pollfd> fds{{stop_fd_, POLLIN, 0}};
    // A device that is lost has no events; poll passes over what is negative.
    for (const Watched& watched : watched_) {
      fds.push_back({watched.events == nullptr ? -1 : watched.events->fd(), POLLIN, 0});
    }
    if (poll(fds.data(), fds.size(), -1) < 0) PCHECK(errno == EINTR);
    if (fds[0].revents != 0) return;
    for (size_t i = 0; i < watched_.size(); ++i) {
      if (fds[i + 1].revents != 0) Deliver(watched_[i]);
    }
  }
}

void RdmaPortWatcher::Deliver(Watched& watched) {
  const auto event = watched.events->Next();
  if (event.ok()) {
    if (*event) listener_(**event);
  } else {
    listener_({.kind = RdmaPortEvent::Kind::kDeviceLost, .device = watched.device});
  }
  // What is lost stays readable for ever.
  if (!event.ok() || (*event && (*event)->kind == RdmaPortEvent::Kind::kDeviceLost)) {
    watched.events.reset();
  }
}

}  // namespace tarn
