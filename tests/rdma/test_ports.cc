#include "tests/rdma/test_ports.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_split.h"
#include "common/transport/verbs/device_choice.h"

namespace tarn {
namespace {

// Whether the command succeeded. It is quiet.
bool Run(const std::string& command) {
  std::vector<std::string> words = absl::StrSplit(command, ' ');
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  return error == 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

std::string NetdevOf(const std::vector<RdmaDevice>& devices, const std::string& port) {
  for (const RdmaDevice& device : devices) {
    if (port.substr(0, port.rfind(':')) == device.name) return device.netdev;
  }
  return "";
}

std::optional<TestPorts> Look() {
  const auto devices = ListRdmaDevices();
  if (!devices.ok()) {
    LOG(WARNING) << devices.status();
    return std::nullopt;
  }
  const RdmaChoice choice = ChooseDevices(*devices, {});
  for (const RefusedPort& port : choice.refused) LOG(WARNING) << port.ToString();
  if (choice.chosen.empty()) return std::nullopt;
  TestPorts ports{.reader = choice.chosen.front().name, .owner = choice.chosen.back().name};
  for (const std::string& port : {ports.reader, ports.owner}) {
    const std::string netdev = NetdevOf(*devices, port);
    if (!netdev.empty()) ports.netdevs.push_back(netdev);
  }
  return ports;
}

}  // namespace

const std::optional<TestPorts>& PortsOfThisHost() {
  static const std::optional<TestPorts> ports = Look();
  return ports;
}

UcxOptions OptionsFor(const std::string& port) {
  // An emulated machine on a busy host takes its time to connect.
  return {.tls = "rc", .devices = port, .connect_timeout = absl::Seconds(15), .verbose = true};
}

std::unique_ptr<CableFault> CableFault::Start(const std::string& netem) {
  if (!CableCanBeCut()) return nullptr;
  std::unique_ptr<CableFault> fault(new CableFault);
  for (const std::string& netdev : PortsOfThisHost()->netdevs) {
    if (!Run("tc qdisc replace dev " + netdev + " root netem " + netem)) return nullptr;
  }
  return fault;
}

CableFault::~CableFault() {
  for (const std::string& netdev : PortsOfThisHost()->netdevs) {
    Run("tc qdisc del dev " + netdev + " root");
  }
}

bool CableCanBeCut() {
  const auto& ports = PortsOfThisHost();
  return ports && ports->netdevs.size() == 2 && ports->netdevs[0] != ports->netdevs[1] &&
         geteuid() == 0;
}

void SetCable(bool up) {
  CHECK(Run("ip link set " + PortsOfThisHost()->netdevs.back() + (up ? " up" : " down")));
}

}  // namespace tarn
