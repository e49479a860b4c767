#include "common/transport/verbs/rdma_devices.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "common/transport/verbs/verbs_source.h"

namespace tarn {
namespace {

namespace fs = std::filesystem;

class FakeSource : public VerbsSource {
 public:
  std::map<std::string, absl::StatusOr<RawDevice>> devices;
  absl::Status status;

  absl::StatusOr<std::vector<std::string>> DeviceNames() override {
    if (!status.ok()) return status;
    std::vector<std::string> names;
    for (const auto& [name, device] : devices) names.push_back(name);
    return names;
  }
  absl::StatusOr<RawDevice> Query(const std::string& device) override { return devices.at(device); }
  absl::StatusOr<std::unique_ptr<VerbsEvents>> OpenEvents(const std::string&) override {
    return absl::UnimplementedError("not here");
  }
};

// The folder of sysfs, as the kernel lays it out.
class Sysfs {
 public:
  Sysfs() : root_(fs::path(testing::TempDir()) / "sysfs") {
    fs::remove_all(root_);
    fs::create_directories(root_ / "class");
  }
  ~Sysfs() { fs::remove_all(root_); }

  std::string folder() const { return root_ / "class"; }
  void AddPci(const std::string& name, const std::string& address, int numa_node) {
    const fs::path device = root_ / "pci" / address;
    fs::create_directories(device);
    std::ofstream(device / "numa_node") << numa_node << "\n";
    fs::create_directories(root_ / "class" / name);
    fs::create_symlink(device, root_ / "class" / name / "device");
  }
  void AddSoftware(const std::string& name, const std::string& netdev) {
    fs::create_directories(root_ / "class" / name);
    std::ofstream(root_ / "class" / name / "parent") << netdev << "\n";
  }

 private:
  const fs::path root_;
};

RawGid Gid(int port, int index, int type, std::array<uint8_t, 16> bytes) {
  return {.port = port, .index = index, .type = type, .bytes = bytes};
}
constexpr std::array<uint8_t, 16> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
constexpr std::array<uint8_t, 16> kLinkLocal = {0xfe, 0x80, 0, 0, 0, 0, 0, 0,
                                                0,    0,    0, 0, 0, 0, 0, 1};
constexpr std::array<uint8_t, 16> kGlobal = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0,
                                             0,    0,    0,    0,    0, 0, 0, 7};

TEST(RdmaDevices, AHostWithoutAnyHasNone) {
  FakeSource source;
  const auto devices = ListRdmaDevices(source, "/nonexistent");
  ASSERT_TRUE(devices.ok());
  EXPECT_TRUE(devices->empty());
}

TEST(RdmaDevices, ThisHostCanBeAsked) {
  const auto devices = ListRdmaDevices();
  ASSERT_TRUE(devices.ok()) << devices.status();
  for (const RdmaDevice& device : *devices) EXPECT_FALSE(device.name.empty());
}

TEST(RdmaDevices, ReadsPortsGidsAndPlace) {
  Sysfs sysfs;
  sysfs.AddPci("mlx5_0", "0000:17:00.0", 1);
  FakeSource source;
  source.devices["mlx5_0"] = RawDevice{
      .name = "mlx5_0",
      .ports = {{.number = 1,
                 .state = 4,
                 .physical_state = 5,
                 .link_layer = 2,
                 .active_width = 2,
                 .active_speed = 32,
                 .active_mtu = 5},
                {.number = 2, .state = 1, .physical_state = 3, .link_layer = 1}},
      .gids = {Gid(1, 3, 2, kMapped), Gid(2, 0, 0, kLinkLocal), Gid(1, 1, 2, kLinkLocal)}};
  const auto devices = ListRdmaDevices(source, sysfs.folder());
  ASSERT_TRUE(devices.ok() && devices->size() == 1);
  const RdmaDevice& device = devices->front();
  EXPECT_EQ(device.pci_address, "0000:17:00.0");
  EXPECT_EQ(device.numa_node, 1);
  EXPECT_EQ(device.problem, "");
  ASSERT_EQ(device.ports.size(), 2u);
  const RdmaPort& port = device.ports[0];
  EXPECT_EQ(port.state, RdmaPort::State::kActive);
  EXPECT_EQ(port.physical_state, "LinkUp");
  EXPECT_EQ(port.link_layer, RdmaPort::LinkLayer::kEthernet);
  EXPECT_EQ(port.gigabits, 100);
  EXPECT_EQ(port.mtu, 4096);
  const std::vector<RdmaGid> expected = {
      {.index = 1, .type = RdmaGid::Type::kRoceV2, .address = "fe80::1", .link_local = true},
      {.index = 3, .type = RdmaGid::Type::kRoceV2, .address = "10.1.2.3", .ipv4 = true}};
  EXPECT_EQ(port.gids, expected);
  EXPECT_EQ(device.ports[1].state, RdmaPort::State::kDown);
  EXPECT_EQ(device.ports[1].physical_state, "Disabled");
  EXPECT_EQ(device.ports[1].gids.size(), 1u);
  EXPECT_EQ(PortName(device, device.ports[1]), "mlx5_0:2");
}

TEST(RdmaDevices, ADeviceInSoftwareHasAnInterfaceAndNoPlace) {
  Sysfs sysfs;
  sysfs.AddSoftware("rxe0", "eth0");
  FakeSource source;
  source.devices["rxe0"] = RawDevice{.name = "rxe0", .ports = {RawPort{}}};
  const auto devices = ListRdmaDevices(source, sysfs.folder());
  ASSERT_TRUE(devices.ok() && devices->size() == 1);
  EXPECT_EQ(devices->front().netdev, "eth0");
  EXPECT_EQ(devices->front().pci_address, "");
  EXPECT_EQ(devices->front().numa_node, -1);
}

TEST(RdmaDevices, NamesWhatTheKernelHasAndLibibverbsDoesNot) {
  Sysfs sysfs;
  sysfs.AddPci("mlx5_1", "0000:99:00.0", 0);
  FakeSource source;
  source.devices["mlx5_0"] = absl::UnavailableError("mlx5_0 cannot be opened: Permission denied");
  const auto devices = ListRdmaDevices(source, sysfs.folder());
  ASSERT_TRUE(devices.ok() && devices->size() == 2);
  EXPECT_EQ((*devices)[0].problem, "mlx5_0 cannot be opened: Permission denied");
  EXPECT_EQ((*devices)[1].name, "mlx5_1");
  EXPECT_NE((*devices)[1].problem, "");
  EXPECT_TRUE((*devices)[1].ports.empty());
  EXPECT_EQ((*devices)[1].pci_address, "0000:99:00.0");
}

TEST(RdmaDevices, SaysWhenLibibverbsDoesNotWork) {
  FakeSource source;
  source.status = absl::UnavailableError("libibverbs: no");
  EXPECT_EQ(ListRdmaDevices(source, "/nonexistent").status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(RdmaDevices, SpeedIsLanesTimesRate) {
  struct Case {
    int width, speed;
    double gigabits;
  };
  for (const Case& c :
       {Case{1, 1, 2.5}, Case{2, 4, 40}, Case{2, 8, 40}, Case{2, 16, 56}, Case{1, 32, 25},
        Case{2, 64, 200}, Case{16, 64, 100}, Case{2, 128, 400}, Case{4, 128, 800}, Case{8, 2, 60},
        Case{0, 32, 0}, Case{2, 0, 0}, Case{2, 3, 0}}) {
    const RawPort raw{.active_width = c.width, .active_speed = c.speed};
    EXPECT_EQ(ParsePort(raw, {}).gigabits, c.gigabits) << c.width << " x " << c.speed;
  }
}

TEST(RdmaDevices, CodesThatNobodyKnowsAreUnknown) {
  const RdmaPort port =
      ParsePort({.state = 77, .physical_state = 99, .link_layer = 9, .active_mtu = 6}, {});
  EXPECT_EQ(port.state, RdmaPort::State::kUnknown);
  EXPECT_EQ(port.physical_state, "unknown");
  EXPECT_EQ(port.link_layer, RdmaPort::LinkLayer::kUnknown);
  EXPECT_EQ(port.mtu, 0);
}

TEST(RdmaDevices, PrefersRoceV2ThenIpv4ThenGlobalAddresses) {
  RdmaPort port = ParsePort({}, {Gid(1, 0, 1, kMapped)});
  const auto preferred = [&](const RawGid& added) {
    const RdmaPort more = ParsePort({}, {added});
    port.gids.push_back(more.gids[0]);
    return PreferredGid(port)->index;
  };
  EXPECT_EQ(PreferredGid(port)->index, 0);
  EXPECT_EQ(preferred(Gid(1, 1, 2, kLinkLocal)), 1);
  EXPECT_EQ(preferred(Gid(1, 2, 2, kGlobal)), 2);
  EXPECT_EQ(preferred(Gid(1, 3, 2, kMapped)), 3);
  EXPECT_EQ(preferred(Gid(1, 4, 2, kMapped)), 3);
  EXPECT_EQ(PreferredGid(RdmaPort()), nullptr);
}

}  // namespace
}  // namespace tarn
