#pragma once

// Tells when an RDMA port goes down or comes back.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn {

class VerbsEvents;
class VerbsSource;

struct RdmaPortEvent {
  enum class Kind {
    kActive,          // the port carries data again
    kError,           // it does not any more
    kAddressChanged,  // its GIDs or LID: peers know it by the old ones
    kDeviceLost,      // the device is dead, all ports with it; no more events
  };

  Kind kind = Kind::kError;
  std::string device;
  int port = 0;  // 0 with kDeviceLost
};

const char* ToString(RdmaPortEvent::Kind kind);

// Owns a thread that sleeps until libibverbs has an event. The destructor stops it, and the
// listener does not run after that. The listener runs on that thread and must not block for long.
class RdmaPortWatcher {
 public:
  using Listener = std::function<void(const RdmaPortEvent&)>;

  // UNAVAILABLE names the device that cannot be opened.
  static absl::StatusOr<std::unique_ptr<RdmaPortWatcher>> Start(
      const std::vector<std::string>& devices, Listener listener);
  // With another source of events than this host's, which may go afterwards.
  static absl::StatusOr<std::unique_ptr<RdmaPortWatcher>> Start(
      VerbsSource& source, const std::vector<std::string>& devices, Listener listener);
  ~RdmaPortWatcher();
  RdmaPortWatcher(const RdmaPortWatcher&) = delete;
  RdmaPortWatcher& operator=(const RdmaPortWatcher&) = delete;

 private:
  struct Watched {
    std::string device;
    std::unique_ptr<VerbsEvents> events;
  };

  RdmaPortWatcher(std::vector<Watched> watched, Listener listener);
  void Run();
  void Deliver(Watched& watched);

  const Listener listener_;
  std::vector<Watched> watched_;  // of the thread
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace tarn
