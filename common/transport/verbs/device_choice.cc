#include "common/transport/verbs/device_choice.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tarn {
namespace {

using LinkLayer = RdmaPort::LinkLayer;
using State = RdmaPort::State;

// A port of a faster network is preferred from this on: a host with 400 Gb/s for its pool has
// 25 Gb/s for its management.
constexpr double kSlowShare = 0.25;

struct Candidate {
  const RdmaDevice* device;
  const RdmaPort* port;
};

std::string Describe(const Candidate& candidate) {
  const auto& [device, port] = candidate;
  std::string text = PortName(*device, *port);
  const RdmaGid* gid = PreferredGid(*port);
  if (port->link_layer == LinkLayer::kEthernet && gid != nullptr) {
    absl::StrAppend(&text, " ", ToString(gid->type));
  } else {
    absl::StrAppend(&text, " ", ToString(port->link_layer));
  }
  absl::StrAppend(&text, " ", port->gigabits, " Gb/s MTU ", port->mtu);
  if (gid != nullptr) absl::StrAppend(&text, " ", gid->address, " (GID ", gid->index, ")");
  if (device->numa_node >= 0) absl::StrAppend(&text, " NUMA ", device->numa_node);
  if (!device->pci_address.empty()) absl::StrAppend(&text, " PCI ", device->pci_address);
  if (!device->netdev.empty()) absl::StrAppend(&text, " in software on ", device->netdev);
  return text;
}

std::string CautionOf(const RdmaPort& port) {
  const RdmaGid* gid = PreferredGid(port);
  if (port.link_layer != LinkLayer::kEthernet || gid == nullptr) return "";
  if (gid->link_local) {
    return "it has only a link-local address, which peers in other subnets do not reach: give its "
           "interface an IP address";
  }
  if (gid->type == RdmaGid::Type::kRoceV1) {
    return "it speaks only RoCE v1, which no router forwards";
  }
  return "";
}

std::string NetdevOf(const RdmaDevice& device, const RdmaPort& port) {
  if (!device.netdev.empty()) return device.netdev;
  for (const RdmaGid& gid : port.gids) {
    if (!gid.netdev.empty()) return gid.netdev;
  }
  return "its interface";
}

std::string DownAdvice(const RdmaDevice& device, const RdmaPort& port) {
  if (port.link_layer == LinkLayer::kEthernet) {
    return absl::StrCat("check cable and switch port, and `ip link set ", NetdevOf(device, port),
                        " up`");
  }
  if (port.state == State::kInitializing || port.state == State::kArmed) {
    return "the link is there, but no subnet manager has set it up: start opensm";
  }
  return "check cable and switch port";
}

// What keeps a port from being used at all. A device that does not work has no ports.
std::optional<RefusedPort> UnusableDevice(const RdmaDevice& device) {
  RefusedPort refused{.name = device.name};
  if (!device.problem.empty()) {
    refused.reason = device.problem;
    refused.advice =
        "see dmesg; ibverbs-providers must be there, and in a container the devices of "
        "/dev/infiniband";
    return refused;
  }
  if (!device.infiniband) {
    refused.reason = "it does not speak InfiniBand's verbs (iWARP?), which UCX needs";
    refused.advice = "use another NIC, or TCP";
    return refused;
  }
  if (device.ports.empty()) {
    refused.reason = "it has no ports";
    refused.advice = "check its firmware and driver (dmesg)";
    return refused;
  }
  return std::nullopt;
}

std::optional<RefusedPort> UnusablePort(const RdmaDevice& device, const RdmaPort& port) {
  RefusedPort refused{.name = PortName(device, port)};
  if (port.state != State::kActive) {
    refused.reason = absl::StrCat("the port is ", ToString(port.state));
    if (!port.physical_state.empty())
      absl::StrAppend(&refused.reason, " (", port.physical_state, ")");
    refused.advice = DownAdvice(device, port);
    return refused;
  }
  if (port.link_layer == LinkLayer::kUnknown) {
    refused.reason = "its link layer is unknown";
    refused.advice = "only InfiniBand and RoCE are used; check its driver";
    return refused;
  }
  if (port.link_layer == LinkLayer::kEthernet && port.gids.empty()) {
    refused.reason = "it has no GID, so no peer can reach it";
    refused.advice = absl::StrCat("give ", NetdevOf(device, port), " an IP address");
    return refused;
  }
  if (port.link_layer == LinkLayer::kInfiniBand && port.lid == 0) {
    refused.reason = "it has no LID";
    refused.advice = "no subnet manager has set it up: start opensm";
    return refused;
  }
  return std::nullopt;
}

bool Names(const std::string& name, const RdmaDevice& device, const RdmaPort* port) {
  return name == device.name || (port != nullptr && name == PortName(device, *port));
}

bool IsNamed(const RdmaPreference& preference, const RdmaDevice& device, const RdmaPort* port) {
  return std::any_of(preference.names.begin(), preference.names.end(),
                     [&](const std::string& name) { return Names(name, device, port); });
}

// The part of a name before the port, so that "mlx5_0:1" finds a device that does not work.
bool NamesPortOf(const RdmaPreference& preference, const RdmaDevice& device) {
  return std::any_of(
      preference.names.begin(), preference.names.end(),
      [&](const std::string& name) { return name.substr(0, name.rfind(':')) == device.name; });
}

std::string AllNames(const std::vector<RdmaDevice>& devices) {
  std::vector<std::string> names;
  for (const RdmaDevice& device : devices) {
    for (const RdmaPort& port : device.ports) names.push_back(PortName(device, port));
    if (device.ports.empty()) names.push_back(device.name);
  }
  return names.empty() ? "none at all" : absl::StrJoin(names, ", ");
}

bool Exists(const std::string& name, const std::vector<RdmaDevice>& devices) {
  for (const RdmaDevice& device : devices) {
    if (name == device.name) return true;
    // Nothing is known of the ports of a device that does not work.
    if (device.ports.empty() && name.substr(0, name.rfind(':')) == device.name) return true;
    for (const RdmaPort& port : device.ports) {
      if (Names(name, device, &port)) return true;
    }
  }
  return false;
}

void RefuseUnknownNames(const std::vector<RdmaDevice>& devices, const RdmaPreference& preference,
                        RdmaChoice& choice) {
  for (const std::string& name : preference.names) {
    if (Exists(name, devices)) continue;
    choice.refused.push_back({.name = name,
                              .reason = "there is no such device",
                              .advice = absl::StrCat("this host has: ", AllNames(devices)),
                              .unknown = true});
  }
}

void RefuseUnwanted(const Candidate& candidate, std::string reason, RdmaChoice& choice) {
  const std::string name = PortName(*candidate.device, *candidate.port);
  choice.refused.push_back({.name = name,
                            .reason = std::move(reason),
                            .advice = absl::StrCat("name it (--rdma-devices=", name, ") to use it"),
                            .unwanted = true});
}

// The usable ones; what is wrong with the others goes to `choice`, if somebody wants them.
std::vector<Candidate> UsablePorts(const std::vector<RdmaDevice>& devices,
                                   const RdmaPreference& preference, RdmaChoice& choice) {
  const bool named = preference.kind == RdmaPreference::Kind::kNamed;
  std::vector<Candidate> usable;
  for (const RdmaDevice& device : devices) {
    if (auto refused = UnusableDevice(device)) {
      if (!named || NamesPortOf(preference, device)) choice.refused.push_back(*std::move(refused));
      continue;
    }
    for (const RdmaPort& port : device.ports) {
      auto refused = UnusablePort(device, port);
      if (!refused) {
        usable.push_back({&device, &port});
      } else if (!named || IsNamed(preference, device, &port)) {
        choice.refused.push_back(*std::move(refused));
      }
    }
  }
  return usable;
}

void Choose(const Candidate& candidate, RdmaChoice& choice) {
  choice.chosen.push_back({.name = PortName(*candidate.device, *candidate.port),
                           .description = Describe(candidate),
                           .caution = CautionOf(*candidate.port)});
}

void ChooseNamed(const std::vector<Candidate>& usable, const RdmaPreference& preference,
                 RdmaChoice& choice) {
  for (const Candidate& candidate : usable) {
    if (IsNamed(preference, *candidate.device, candidate.port)) {
      Choose(candidate, choice);
    } else {
      RefuseUnwanted(candidate, "it is not among the named devices", choice);
    }
  }
}

void ChooseBest(const std::vector<Candidate>& usable, RdmaChoice& choice) {
  const auto fastest = std::max_element(
      usable.begin(), usable.end(),
      [](const Candidate& a, const Candidate& b) { return a.port->gigabits < b.port->gigabits; });
  for (const Candidate& candidate : usable) {
    const RdmaPort& port = *candidate.port;
    const RdmaPort& best = *fastest->port;
    const std::string than = absl::StrCat(" beside ", PortName(*fastest->device, best));
    if (port.link_layer != best.link_layer) {
      RefuseUnwanted(candidate,
                     absl::StrCat("it is ", ToString(port.link_layer), than, ", which is ",
                                  ToString(best.link_layer), " and faster"),
                     choice);
    } else if (port.gigabits < kSlowShare * best.gigabits) {
      RefuseUnwanted(candidate,
                     absl::StrCat("it has ", port.gigabits, " Gb/s", than, " with ", best.gigabits),
                     choice);
    } else {
      Choose(candidate, choice);
    }
  }
}

}  // namespace

absl::StatusOr<RdmaPreference> ParseRdmaPreference(const std::string& text) {
  if (text.empty() || text == "auto") return RdmaPreference{};
  if (text == "none") return RdmaPreference{.kind = RdmaPreference::Kind::kNone};
  RdmaPreference preference{.kind = RdmaPreference::Kind::kNamed};
  const std::vector<std::string> names = absl::StrSplit(text, ',');
  for (std::string name : names) {
    absl::StripAsciiWhitespace(&name);
    if (name.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" has an empty name"));
    }
    if (name == "auto" || name == "none") {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text, "\": ", name, " does not go with names of devices"));
    }
    preference.names.push_back(std::move(name));
  }
  return preference;
}

std::string RefusedPort::ToString() const { return absl::StrCat(name, ": ", reason, "; ", advice); }

std::string RdmaChoice::UcxDevices() const {
  return absl::StrJoin(chosen, ",", [](std::string* out, const ChosenPort& port) {
    absl::StrAppend(out, port.name);
  });
}

RdmaChoice ChooseDevices(const std::vector<RdmaDevice>& devices, const RdmaPreference& preference) {
  RdmaChoice choice;
  if (preference.kind == RdmaPreference::Kind::kNone) return choice;
  RefuseUnknownNames(devices, preference, choice);
  const std::vector<Candidate> usable = UsablePorts(devices, preference, choice);
  if (preference.kind == RdmaPreference::Kind::kNamed) {
    ChooseNamed(usable, preference, choice);
  } else if (!usable.empty()) {
    ChooseBest(usable, choice);
  }
  return choice;
}

}  // namespace tarn
