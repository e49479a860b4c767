#include "kvstore/client/rdma_ports.h"

#include <glog/logging.h>
#include <net/if.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/ucx/ucx_tls.h"

namespace tarn::kvstore {
namespace {

// UCX's list of devices is one for RDMA and TCP, so naming RDMA ports alone would end TCP.
std::string WithInterfaces(std::string devices) {
  struct if_nameindex* interfaces = if_nameindex();
  if (interfaces == nullptr) return devices;
  for (const struct if_nameindex* i = interfaces; i->if_index != 0; ++i) {
    absl::StrAppend(&devices, ",", i->if_name);
  }
  if_freenameindex(interfaces);
  return devices;
}

absl::Status CheckNames(const RdmaChoice& choice) {
  for (const RefusedPort& refused : choice.refused) {
    if (refused.unknown) {
      return absl::InvalidArgumentError(absl::StrCat("--rdma-devices: ", refused.ToString()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RdmaDevice>> DevicesOfThisHost(const RdmaPreference& preference) {
  if (preference.kind == RdmaPreference::Kind::kNone) return std::vector<RdmaDevice>();
  auto devices = ListRdmaDevices();
  if (devices.ok() || preference.kind == RdmaPreference::Kind::kNamed) return devices;
  LOG(WARNING) << "RDMA is not used: " << Message(devices.status());
  return std::vector<RdmaDevice>();
}

}  // namespace

RdmaPorts::RdmaPorts(metrics::Registry* registry)
    : active_(registry->AddGaugeFamily("tarn_rdma_port_active",
                                       "Whether the RDMA port carries data: 1 or 0.",
                                       {.names = {"device", "port"}})),
      speed_(registry->AddGaugeFamily("tarn_rdma_port_bits_per_second",
                                      "Speed of the RDMA port when the node started.",
                                      {.names = {"device", "port"}})) {}

absl::StatusOr<std::unique_ptr<RdmaPorts>> RdmaPorts::Open(const RdmaPortsOptions& options,
                                                           metrics::Registry* registry) {
  const auto preference = ParseRdmaPreference(options.devices);
  if (!preference.ok()) return Annotate(preference.status(), "--rdma-devices");
  ASSIGN_OR_RETURN(const std::vector<RdmaDevice> devices, DevicesOfThisHost(*preference));
  ASSIGN_OR_RETURN(auto ports, Make(devices, options, registry));
  ports->Watch(devices);
  return ports;
}

absl::StatusOr<std::unique_ptr<RdmaPorts>> RdmaPorts::Make(const std::vector<RdmaDevice>& devices,
                                                           const RdmaPortsOptions& options,
                                                           metrics::Registry* registry) {
  std::unique_ptr<RdmaPorts> ports(new RdmaPorts(registry));
  RETURN_IF_ERROR(ports->Choose(devices, options));
  return ports;
}

absl::Status RdmaPorts::Choose(const std::vector<RdmaDevice>& devices,
                               const RdmaPortsOptions& options) {
  const auto preference = ParseRdmaPreference(options.devices);
  if (!preference.ok()) return Annotate(preference.status(), "--rdma-devices");
  const RdmaChoice choice = ChooseDevices(devices, *preference);
  for (const RdmaDevice& device : devices) Register(device);
  Report(choice);
  RETURN_IF_ERROR(CheckNames(choice));
  if (!options.transports.empty()) ucx_.tls = options.transports;
  ucx_.devices = choice.UcxDevices();
  if (ucx_.devices.empty()) {
    ASSIGN_OR_RETURN(ucx_.tls, WithoutRdma(ucx_.tls));
  } else if (AllowsTcp(ucx_.tls)) {
    ucx_.devices = WithInterfaces(std::move(ucx_.devices));
  }
  return absl::OkStatus();
}

void RdmaPorts::Register(const RdmaDevice& device) {
  for (const RdmaPort& port : device.ports) {
    const std::vector<std::string> labels = {device.name, absl::StrCat(port.number)};
    speed_.With(labels).Set(port.gigabits * 1e9);
    gauges_[PortName(device, port)] = &active_.With(labels);
    SetActive(PortName(device, port), port.state == RdmaPort::State::kActive);
  }
}

void RdmaPorts::Report(const RdmaChoice& choice) {
  for (const ChosenPort& port : choice.chosen) {
    LOG(INFO) << "RDMA: uses " << port.description;
    if (!port.caution.empty()) LOG(WARNING) << "RDMA: " << port.name << ": " << port.caution;
    descriptions_.push_back(port.description);
    chosen_.insert(port.name);
  }
  MutexLock lock(mutex_);
  for (const RefusedPort& port : choice.refused) {
    if (port.unwanted) {
      LOG(INFO) << "RDMA: does not use " << port.ToString();
      continue;
    }
    LOG(WARNING) << "RDMA: cannot use " << port.ToString();
    problems_[port.name] = port.ToString();
  }
}

void RdmaPorts::Watch(const std::vector<RdmaDevice>& devices) {
  std::vector<std::string> names;
  for (const RdmaDevice& device : devices) {
    if (!device.ports.empty()) names.push_back(device.name);
  }
  if (names.empty()) return;
  auto watcher =
      RdmaPortWatcher::Start(names, [this](const RdmaPortEvent& event) { OnEvent(event); });
  if (watcher.ok()) {
    watcher_ = *std::move(watcher);
  } else {
    LOG(WARNING) << "RDMA: nobody watches the ports: " << Message(watcher.status());
  }
}

void RdmaPorts::SetActive(const std::string& port, bool active) {
  const auto gauge = gauges_.find(port);
  if (gauge != gauges_.end()) gauge->second->Set(active ? 1 : 0);
}

void RdmaPorts::OnEvent(const RdmaPortEvent& event) {
  const std::string device = absl::StrCat(event.device, ":");
  for (const auto& [name, gauge] : gauges_) {
    const bool affected =
        event.port == 0 ? absl::StartsWith(name, device) : name == absl::StrCat(device, event.port);
    if (!affected) continue;
    LOG(WARNING) << "RDMA: " << name << " is " << ToString(event.kind);
    if (event.kind == RdmaPortEvent::Kind::kAddressChanged) continue;
    const bool active = event.kind == RdmaPortEvent::Kind::kActive;
    SetActive(name, active);
    MutexLock lock(mutex_);
    if (!active) {
      problems_[name] = absl::StrCat(name, ": the port is ", ToString(event.kind),
                                     "; check cable, switch port and interface");
    } else if (chosen_.contains(name)) {
      problems_.erase(name);
    } else if (problems_.contains(name)) {
      problems_[name] = absl::StrCat(name, ": active since this node started; restart it");
    }
  }
}

std::vector<std::string> RdmaPorts::Problems() const {
  std::vector<std::string> problems;
  MutexLock lock(mutex_);
  for (const auto& [name, problem] : problems_) problems.push_back(problem);
  return problems;
}

}  // namespace tarn::kvstore
