#pragma once

// What libibverbs says, in its own codes: the seam behind which tests put devices that this host
// does not have. Private to verbs/.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/verbs/port_watcher.h"
#include "common/transport/verbs/rdma_devices.h"

namespace tarn {

// Codes are those of the InfiniBand specification, as in ibv_port_attr.
struct RawPort {
  int number = 1;
  int state = 0;
  int physical_state = 0;
  int link_layer = 0;
  int active_width = 0;
  int active_speed = 0;
  int active_mtu = 0;
  int lid = 0;
};

struct RawGid {
  int port = 1;
  int index = 0;
  int type = 0;
  std::array<uint8_t, 16> bytes{};
  std::string netdev;
};

struct RawDevice {
  std::string name;
  bool infiniband = true;
  std::vector<RawPort> ports;
  std::vector<RawGid> gids;
};

// One opened device.
class VerbsEvents {
 public:
  virtual ~VerbsEvents() = default;
  // Readable when there is an event.
  virtual int fd() const = 0;
  // The next event, which is acknowledged; nothing if it is none of a port's. Does not block.
  // UNAVAILABLE: there will be no more.
  virtual absl::StatusOr<std::optional<RdmaPortEvent>> Next() = 0;
};

class VerbsSource {
 public:
  virtual ~VerbsSource() = default;
  virtual absl::StatusOr<std::vector<std::string>> DeviceNames() = 0;
  virtual absl::StatusOr<RawDevice> Query(const std::string& device) = 0;
  virtual absl::StatusOr<std::unique_ptr<VerbsEvents>> OpenEvents(const std::string& device) = 0;
};

// This host's libibverbs.
std::unique_ptr<VerbsSource> SystemVerbs();

// `sysfs` is the folder of RDMA devices, /sys/class/infiniband on a real host.
absl::StatusOr<std::vector<RdmaDevice>> ListRdmaDevices(VerbsSource& source,
                                                        const std::string& sysfs);

RdmaPort ParsePort(const RawPort& raw, const std::vector<RawGid>& gids);

}  // namespace tarn
