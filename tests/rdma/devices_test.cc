// What libibverbs says of real ports, and that a port's end is heard of.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>

#include "common/base/mutex.h"
#include "common/metrics/registry.h"
#include "common/transport/verbs/device_choice.h"
#include "common/transport/verbs/port_watcher.h"
#include "kvstore/client/rdma_ports.h"
#include "tests/rdma/test_ports.h"

namespace tarn {
namespace {

TEST(Devices, ArePresent) {
  SKIP_WITHOUT_RDMA();
  const auto devices = ListRdmaDevices();
  ASSERT_TRUE(devices.ok()) << devices.status();
  for (const ChosenPort& port : ChooseDevices(*devices, {}).chosen) {
    std::cout << "uses " << port.description << "\n";
  }
  for (const RdmaDevice& device : *devices) {
    EXPECT_EQ(device.problem, "");
    // A device of silicon has a place, one in software an interface.
    EXPECT_NE(device.pci_address.empty(), device.netdev.empty()) << device.name;
    for (const RdmaPort& port : device.ports) {
      if (port.state != RdmaPort::State::kActive) continue;
      EXPECT_GT(port.gigabits, 0) << PortName(device, port);
      EXPECT_GE(port.mtu, 256) << PortName(device, port);
      EXPECT_NE(port.link_layer, RdmaPort::LinkLayer::kUnknown) << PortName(device, port);
      ASSERT_NE(PreferredGid(port), nullptr) << PortName(device, port);
      EXPECT_NE(PreferredGid(port)->address, "") << PortName(device, port);
    }
  }
}

TEST(Devices, ANodeTakesThem) {
  SKIP_WITHOUT_RDMA();
  metrics::Registry registry;
  const auto ports = kvstore::RdmaPorts::Open({}, &registry);
  ASSERT_TRUE(ports.ok()) << ports.status();
  EXPECT_THAT((*ports)->ucx().devices, testing::HasSubstr(PortsOfThisHost()->reader));
  EXPECT_THAT((*ports)->ucx().devices, testing::HasSubstr(PortsOfThisHost()->owner));
  EXPECT_THAT((*ports)->Problems(), testing::IsEmpty());
  const auto unknown = kvstore::RdmaPorts::Make(*ListRdmaDevices(), {.devices = "nothing_0"},
                                                std::make_unique<metrics::Registry>().get());
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
}

// Counts what happens to the owner's port.
class Heard {
 public:
  void Add(const RdmaPortEvent& event) {
    MutexLock lock(mutex_);
    if (event.kind == RdmaPortEvent::Kind::kError) ++errors_;
    if (event.kind == RdmaPortEvent::Kind::kActive) ++actives_;
    changed_.notify_all();
  }
  bool Wait(int errors, int actives) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    MutexLock lock(mutex_);
    while (errors_ < errors || actives_ < actives) {
      if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) return false;
    }
    return true;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  int errors_ ABSL_GUARDED_BY(mutex_) = 0;
  int actives_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(Devices, ACutCableIsHeardOfAndItsMendingToo) {
  SKIP_WITHOUT_RDMA();
  if (!CableCanBeCut()) GTEST_SKIP() << "needs two ports in software, and root, to cut the cable";
  const std::string& port = PortsOfThisHost()->owner;
  Heard heard;
  const auto watcher = RdmaPortWatcher::Start(
      {port.substr(0, port.rfind(':'))}, [&](const RdmaPortEvent& event) { heard.Add(event); });
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  for (int round = 1; round <= 2; ++round) {
    SetCable(false);
    EXPECT_TRUE(heard.Wait(round, round - 1)) << "the end of the port is not heard of";
    SetCable(true);
    EXPECT_TRUE(heard.Wait(round, round)) << "its return is not heard of";
  }
}

}  // namespace
}  // namespace tarn
