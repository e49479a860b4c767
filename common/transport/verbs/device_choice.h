#pragma once

// Which RDMA ports UCX gets. Pure: equal inputs give equal choices.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/verbs/rdma_devices.h"

namespace tarn {

// What the operator wants.
struct RdmaPreference {
  enum class Kind { kAuto, kNone, kNamed };

  Kind kind = Kind::kAuto;
  std::vector<std::string> names;  // kNamed: "mlx5_0" (all its ports) or "mlx5_0:1"
};

// "auto" (or nothing), "none", or names with commas. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<RdmaPreference> ParseRdmaPreference(const std::string& text);

struct ChosenPort {
  std::string name;         // "mlx5_0:1"
  std::string description;  // "mlx5_0:1 RoCE v2 100 Gb/s MTU 4096 10.1.2.3 NUMA 0 PCI 0000:17:00.0"
  std::string caution;      // what may go wrong with it; empty: nothing is known
};

struct RefusedPort {
  std::string name;  // of the port; of the device, where that is the matter; or as it was asked for
  std::string reason;
  std::string advice;     // what to do
  bool unknown = false;   // there is no such device or port
  bool unwanted = false;  // usable, but not asked for: nothing to do

  std::string ToString() const;
};

struct RdmaChoice {
  std::vector<ChosenPort> chosen;  // in order of name
  std::vector<RefusedPort> refused;

  // As UCX_NET_DEVICES wants them: "mlx5_0:1,mlx5_1:1". Empty: no RDMA, which UCX must be told
  // otherwise, since it takes an empty list for all devices.
  std::string UcxDevices() const;
};

// Every active port with an address is usable. kAuto takes those that are of one network with the
// fastest: the same link layer, and at least a quarter of its speed, since a port of a management
// network reaches no peer's pool. kNamed takes what is named and usable.
RdmaChoice ChooseDevices(const std::vector<RdmaDevice>& devices, const RdmaPreference& preference);

}  // namespace tarn
