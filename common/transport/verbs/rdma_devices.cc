#include "common/transport/verbs/rdma_devices.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/verbs/verbs_source.h"

namespace tarn {
namespace {

constexpr char kSysfs[] = "/sys/class/infiniband";

RdmaPort::State StateOf(int code) {
  switch (code) {
    case 1:
      return RdmaPort::State::kDown;
    case 2:
      return RdmaPort::State::kInitializing;
    case 3:
      return RdmaPort::State::kArmed;
    case 4:
      return RdmaPort::State::kActive;
    default:
      return RdmaPort::State::kUnknown;
  }
}

const char* PhysicalStateOf(int code) {
  static constexpr const char* kNames[] = {"",         "Sleep",  "Polling",           "Disabled",
                                           "Training", "LinkUp", "LinkErrorRecovery", "PhyTest"};
  return code > 0 && code < 8 ? kNames[code] : "unknown";
}

int LanesOf(int width) {
  switch (width) {
    case 1:
      return 1;
    case 2:
      return 4;
    case 4:
      return 8;
    case 8:
      return 12;
    case 16:
      return 2;
    default:
      return 0;
  }
}

// SDR, DDR, QDR, FDR10, FDR, EDR, HDR, NDR: the figures they are sold under, as the kernel's.
double GigabitsPerLane(int speed) {
  static constexpr std::pair<int, double> kRates[] = {{1, 2.5}, {2, 5},   {4, 10},  {8, 10},
                                                      {16, 14}, {32, 25}, {64, 50}, {128, 100}};
  for (const auto& [code, rate] : kRates) {
    if (code == speed) return rate;
  }
  return 0;
}

RdmaPort::LinkLayer LinkLayerOf(int code) {
  if (code == 1) return RdmaPort::LinkLayer::kInfiniBand;
  if (code == 2) return RdmaPort::LinkLayer::kEthernet;
  return RdmaPort::LinkLayer::kUnknown;
}

RdmaGid ParseGid(const RawGid& raw) {
  RdmaGid gid{.index = raw.index, .netdev = raw.netdev};
  if (raw.type == 1) gid.type = RdmaGid::Type::kRoceV1;
  if (raw.type == 2) gid.type = RdmaGid::Type::kRoceV2;
  const uint8_t* bytes = raw.bytes.data();
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  gid.ipv4 = std::memcmp(bytes, kMapped, sizeof(kMapped)) == 0;
  gid.link_local = bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(gid.ipv4 ? AF_INET : AF_INET6, gid.ipv4 ? bytes + sizeof(kMapped) : bytes, text,
            sizeof(text));
  gid.address = text;
  return gid;
}

std::string FirstLine(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Where the device sits; nothing of it is known for devices in software.
void ReadPlace(const std::filesystem::path& folder, RdmaDevice& device) {
  std::error_code error;
  const auto pci = std::filesystem::canonical(folder / "device", error);
  if (!error && absl::StrContains(pci.filename().string(), ':')) {
    device.pci_address = pci.filename();
  }
  const std::string node = FirstLine(folder / "device" / "numa_node");
  if (!node.empty()) device.numa_node = std::atoi(node.c_str());
  device.netdev = FirstLine(folder / "parent");
}

std::set<std::string> NamesIn(const std::string& sysfs) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(sysfs, error)) {
    names.insert(entry.path().filename());
  }
  return names;
}

RdmaDevice Describe(VerbsSource& source, const std::string& name) {
  RdmaDevice device{.name = name};
  const auto raw = source.Query(name);
  if (!raw.ok()) {
    device.problem = Message(raw.status());
    return device;
  }
  device.infiniband = raw->infiniband;
  for (const RawPort& port : raw->ports) device.ports.push_back(ParsePort(port, raw->gids));
  return device;
}

int GidRank(const RdmaGid& gid) {
  if (gid.link_local) return 0;
  return gid.ipv4 ? 2 : 1;
}

}  // namespace

std::string PortName(const RdmaDevice& device, const RdmaPort& port) {
  return absl::StrCat(device.name, ":", port.number);
}

const char* ToString(RdmaPort::LinkLayer link_layer) {
  switch (link_layer) {
    case RdmaPort::LinkLayer::kInfiniBand:
      return "InfiniBand";
    case RdmaPort::LinkLayer::kEthernet:
      return "Ethernet";
    case RdmaPort::LinkLayer::kUnknown:
      break;
  }
  return "unknown";
}

const char* ToString(RdmaPort::State state) {
  switch (state) {
    case RdmaPort::State::kDown:
      return "down";
    case RdmaPort::State::kInitializing:
      return "initializing";
    case RdmaPort::State::kArmed:
      return "armed";
    case RdmaPort::State::kActive:
      return "active";
    case RdmaPort::State::kUnknown:
      break;
  }
  return "in an unknown state";
}

const char* ToString(RdmaGid::Type type) {
  switch (type) {
    case RdmaGid::Type::kInfiniBand:
      return "InfiniBand";
    case RdmaGid::Type::kRoceV1:
      return "RoCE v1";
    case RdmaGid::Type::kRoceV2:
      return "RoCE v2";
  }
  return "";
}

const RdmaGid* PreferredGid(const RdmaPort& port) {
  const auto better = [](const RdmaGid& a, const RdmaGid& b) {
    if (a.type != b.type) return a.type > b.type;
    return GidRank(a) > GidRank(b);
  };
  const RdmaGid* best = nullptr;
  for (const RdmaGid& gid : port.gids) {
    if (best == nullptr || better(gid, *best)) best = &gid;
  }
  return best;
}

RdmaPort ParsePort(const RawPort& raw, const std::vector<RawGid>& gids) {
  RdmaPort port{.number = raw.number,
                .link_layer = LinkLayerOf(raw.link_layer),
                .state = StateOf(raw.state),
                .physical_state = PhysicalStateOf(raw.physical_state),
                .gigabits = LanesOf(raw.active_width) * GigabitsPerLane(raw.active_speed),
                .lid = raw.lid};
  if (raw.active_mtu >= 1 && raw.active_mtu <= 5) port.mtu = 128 << raw.active_mtu;
  for (const RawGid& gid : gids) {
    if (gid.port == raw.number) port.gids.push_back(ParseGid(gid));
  }
  std::sort(port.gids.begin(), port.gids.end(),
            [](const RdmaGid& a, const RdmaGid& b) { return a.index < b.index; });
  return port;
}

absl::StatusOr<std::vector<RdmaDevice>> ListRdmaDevices(VerbsSource& source,
                                                        const std::string& sysfs) {
  ASSIGN_OR_RETURN(const std::vector<std::string> usable, source.DeviceNames());
  const std::set<std::string> verbs(usable.begin(), usable.end());
  std::set<std::string> names = NamesIn(sysfs);
  names.insert(verbs.begin(), verbs.end());
  std::vector<RdmaDevice> devices;
  for (const std::string& name : names) {
    RdmaDevice device{.name = name};
    if (verbs.contains(name)) {
      device = Describe(source, name);
    } else {
      device.problem =
          "the kernel has it, libibverbs does not: no driver for it, or no device file";
    }
    ReadPlace(std::filesystem::path(sysfs) / name, device);
    devices.push_back(std::move(device));
  }
  return devices;
}

absl::StatusOr<std::vector<RdmaDevice>> ListRdmaDevices() {
  const auto source = SystemVerbs();
  return ListRdmaDevices(*source, kSysfs);
}

}  // namespace tarn
