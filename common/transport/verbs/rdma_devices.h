#pragma once

// Which RDMA devices this host has, and in what state: plain values, as of the moment of asking.
//
// libibverbs and sysfs are asked; nothing is opened for longer than that. Thread-safe. Blocks for
// milliseconds a device: at start, not per request.

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn {

// An address of a port, by which peers reach it.
struct RdmaGid {
  enum class Type { kInfiniBand, kRoceV1, kRoceV2 };

  int index = 0;  // in the port's table: UCX_IB_GID_INDEX
  Type type = Type::kInfiniBand;
  std::string address;      // "10.1.2.3", "fe80::1"
  bool ipv4 = false;        // of an IPv4 address
  bool link_local = false;  // of IPv6: known in its own subnet only
  std::string netdev;       // the interface that has the address; may be empty

  friend bool operator==(const RdmaGid&, const RdmaGid&) = default;
};

struct RdmaPort {
  enum class LinkLayer { kUnknown, kInfiniBand, kEthernet };
  enum class State { kUnknown, kDown, kInitializing, kArmed, kActive };

  int number = 1;
  LinkLayer link_layer = LinkLayer::kUnknown;
  State state = State::kUnknown;
  std::string physical_state;  // "LinkUp", "Disabled", "Polling"
  double gigabits = 0;         // per second, lanes times rate of a lane
  int mtu = 0;                 // in bytes, the active one
  int lid = 0;                 // InfiniBand: given by the subnet manager, 0 without one
  std::vector<RdmaGid> gids;   // by index

  friend bool operator==(const RdmaPort&, const RdmaPort&) = default;
};

struct RdmaDevice {
  std::string name;         // "mlx5_0"
  std::string pci_address;  // "0000:17:00.0"; empty for devices in software
  int numa_node = -1;       // -1: not known
  std::string netdev;       // of a device in software: the interface under it
  bool infiniband = true;   // speaks InfiniBand's verbs; false: iWARP and others
  std::vector<RdmaPort> ports;
  // Why the kernel's device cannot be used from here; empty if it can. There are no ports then.
  std::string problem;

  friend bool operator==(const RdmaDevice&, const RdmaDevice&) = default;
};

// "mlx5_0:1", as UCX names ports.
std::string PortName(const RdmaDevice& device, const RdmaPort& port);

const char* ToString(RdmaPort::LinkLayer link_layer);
const char* ToString(RdmaPort::State state);
const char* ToString(RdmaGid::Type type);

// The address that peers should use: RoCE v2 before v1, IPv4 before IPv6, link-local last. Null:
// the port has none.
const RdmaGid* PreferredGid(const RdmaPort& port);

// In order of name; empty on a host without RDMA. UNAVAILABLE: libibverbs does not work here.
absl::StatusOr<std::vector<RdmaDevice>> ListRdmaDevices();

}  // namespace tarn
