#include "common/transport/verbs/port_watcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <utility>

#include "common/base/mutex.h"
#include "common/transport/verbs/verbs_source.h"

namespace tarn {
namespace {

using Kind = RdmaPortEvent::Kind;

// Events of one device through a pipe: a byte each, its kind; 'x' is no event of a port, the end of
// the pipe is the end of the device.
class PipeEvents : public VerbsEvents {
 public:
  PipeEvents(std::string device, int fd) : device_(std::move(device)), fd_(fd) {}
  ~PipeEvents() override { close(fd_); }
  int fd() const override { return fd_; }
  absl::StatusOr<std::optional<RdmaPortEvent>> Next() override {
    char byte;
    if (read(fd_, &byte, 1) != 1) return absl::UnavailableError("gone");
    if (byte == 'x') return std::nullopt;
    return RdmaPortEvent{.kind = static_cast<Kind>(byte), .device = device_, .port = 1};
  }

 private:
  const std::string device_;
  const int fd_;
};

class PipeSource : public VerbsSource {
 public:
  explicit PipeSource(const std::vector<std::string>& devices) {
    for (const std::string& device : devices) {
      int fds[2];
      EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
      read_ends_[device] = fds[0];
      write_ends_[device] = fds[1];
    }
  }
  ~PipeSource() override {
    for (const auto& [device, fd] : write_ends_) close(fd);
  }

  void Raise(const std::string& device, Kind kind) { Write(device, static_cast<char>(kind)); }
  void RaiseOther(const std::string& device) { Write(device, 'x'); }
  void Remove(const std::string& device) {
    close(write_ends_.at(device));
    write_ends_.erase(device);
  }

  absl::StatusOr<std::vector<std::string>> DeviceNames() override {
    return absl::UnimplementedError("not here");
  }
  absl::StatusOr<RawDevice> Query(const std::string&) override {
    return absl::UnimplementedError("not here");
  }
  absl::StatusOr<std::unique_ptr<VerbsEvents>> OpenEvents(const std::string& device) override {
    if (!read_ends_.contains(device)) return absl::UnavailableError(device + " is gone");
    return std::make_unique<PipeEvents>(device, read_ends_.at(device));
  }

 private:
  void Write(const std::string& device, char byte) {
    EXPECT_EQ(write(write_ends_.at(device), &byte, 1), 1);
  }

  std::map<std::string, int> read_ends_;  // each owned by the events that were opened
  std::map<std::string, int> write_ends_;
};

class Heard {
 public:
  void Add(const RdmaPortEvent& event) {
    MutexLock lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }
  // The first `count`, or fewer if they do not come.
  std::vector<RdmaPortEvent> Wait(size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    MutexLock lock(mutex_);
    while (events_.size() < count) {
      if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) break;
    }
    return events_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  std::vector<RdmaPortEvent> events_ ABSL_GUARDED_BY(mutex_);
};

TEST(RdmaPortWatcher, TellsOfEventsOfAllDevicesInOrder) {
  PipeSource source({"a", "b"});
  Heard heard;
  auto watcher = RdmaPortWatcher::Start(source, {"a", "b"}, [&](const auto& e) { heard.Add(e); });
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  source.Raise("a", Kind::kError);
  EXPECT_EQ(heard.Wait(1).size(), 1u);
  source.RaiseOther("a");
  source.Raise("b", Kind::kAddressChanged);
  EXPECT_EQ(heard.Wait(2).size(), 2u);
  source.Raise("a", Kind::kActive);
  const auto events = heard.Wait(3);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].kind, Kind::kError);
  EXPECT_EQ(events[0].device, "a");
  EXPECT_EQ(events[0].port, 1);
  EXPECT_EQ(events[1].kind, Kind::kAddressChanged);
  EXPECT_EQ(events[1].device, "b");
  EXPECT_EQ(events[2].kind, Kind::kActive);
}

TEST(RdmaPortWatcher, ALostDeviceIsToldOnceAndTheOthersGoOn) {
  PipeSource source({"a", "b", "c"});
  Heard heard;
  auto watcher =
      RdmaPortWatcher::Start(source, {"a", "b", "c"}, [&](const auto& e) { heard.Add(e); });
  ASSERT_TRUE(watcher.ok());
  source.Remove("a");
  EXPECT_EQ(heard.Wait(1).size(), 1u);
  source.Raise("b", Kind::kDeviceLost);
  EXPECT_EQ(heard.Wait(2).size(), 2u);
  for (int i = 0; i < 3; ++i) source.Raise("c", Kind::kActive);
  const auto events = heard.Wait(5);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].kind, Kind::kDeviceLost);
  EXPECT_EQ(events[0].device, "a");
  EXPECT_EQ(events[1].device, "b");
  for (int i = 2; i < 5; ++i) EXPECT_EQ(events[static_cast<size_t>(i)].device, "c");
}

TEST(RdmaPortWatcher, StopsWithAndWithoutDevices) {
  PipeSource source({"a"});
  for (const std::vector<std::string>& devices : {std::vector<std::string>{}, {"a"}}) {
    auto watcher = RdmaPortWatcher::Start(source, devices, [](const auto&) { FAIL(); });
    ASSERT_TRUE(watcher.ok());
    watcher->reset();
  }
}

TEST(RdmaPortWatcher, NamesADeviceThatCannotBeOpened) {
  PipeSource source({});
  const auto watcher = RdmaPortWatcher::Start(source, {"a"}, [](const auto&) {});
  EXPECT_EQ(watcher.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(watcher.status().message()).find("a is gone"), std::string::npos);
}

}  // namespace
}  // namespace tarn
