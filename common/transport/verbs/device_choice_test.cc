#include "common/transport/verbs/device_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tarn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

RdmaPort RocePort(double gigabits = 100) {
  return {.link_layer = RdmaPort::LinkLayer::kEthernet,
          .state = RdmaPort::State::kActive,
          .physical_state = "LinkUp",
          .gigabits = gigabits,
          .mtu = 4096,
          .gids = {{.index = 3,
                    .type = RdmaGid::Type::kRoceV2,
                    .address = "10.1.2.3",
                    .ipv4 = true,
                    .netdev = "ens1"}}};
}
RdmaPort InfiniBandPort(double gigabits = 400) {
  return {.link_layer = RdmaPort::LinkLayer::kInfiniBand,
          .state = RdmaPort::State::kActive,
          .gigabits = gigabits,
          .mtu = 4096,
          .lid = 7,
          .gids = {{.address = "fe80::1", .link_local = true}}};
}
RdmaDevice Device(const std::string& name, RdmaPort port) {
  return {.name = name, .pci_address = "0000:17:00.0", .numa_node = 1, .ports = {std::move(port)}};
}
RdmaPreference Preference(const std::string& text) {
  const auto preference = ParseRdmaPreference(text);
  EXPECT_TRUE(preference.ok()) << preference.status();
  return *preference;
}
RdmaChoice Choose(const std::vector<RdmaDevice>& devices, const std::string& preference = "auto") {
  return ChooseDevices(devices, Preference(preference));
}

TEST(RdmaPreference, Parses) {
  EXPECT_EQ(Preference("").kind, RdmaPreference::Kind::kAuto);
  EXPECT_EQ(Preference("auto").kind, RdmaPreference::Kind::kAuto);
  EXPECT_EQ(Preference("none").kind, RdmaPreference::Kind::kNone);
  const RdmaPreference named = Preference("mlx5_0, mlx5_1:1");
  EXPECT_EQ(named.kind, RdmaPreference::Kind::kNamed);
  EXPECT_THAT(named.names, ElementsAre("mlx5_0", "mlx5_1:1"));
}

TEST(RdmaPreference, SaysWhatIsWrong) {
  for (const char* text : {"a,,b", ",", "auto,mlx5_0", "mlx5_0,none"}) {
    EXPECT_EQ(ParseRdmaPreference(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(DeviceChoice, TakesAllPortsOfOneNetwork) {
  const RdmaChoice choice = Choose({Device("mlx5_0", RocePort()), Device("mlx5_1", RocePort(50))});
  EXPECT_EQ(choice.UcxDevices(), "mlx5_0:1,mlx5_1:1");
  EXPECT_THAT(choice.refused, IsEmpty());
  EXPECT_EQ(choice.chosen[0].description,
            "mlx5_0:1 RoCE v2 100 Gb/s MTU 4096 10.1.2.3 (GID 3) NUMA 1 PCI 0000:17:00.0");
  EXPECT_EQ(choice.chosen[0].caution, "");
}

TEST(DeviceChoice, WithoutDevicesNothingIsChosenAndNothingIsWrong) {
  for (const char* preference : {"auto", "none"}) {
    const RdmaChoice choice = Choose({}, preference);
    EXPECT_EQ(choice.UcxDevices(), "");
    EXPECT_THAT(choice.refused, IsEmpty());
  }
}

TEST(DeviceChoice, NoneTakesNone) {
  EXPECT_EQ(Choose({Device("mlx5_0", RocePort())}, "none").UcxDevices(), "");
}

TEST(DeviceChoice, ADeadPortIsNamedWithWhatToDo) {
  RdmaPort down = RocePort();
  down.state = RdmaPort::State::kDown;
  down.physical_state = "Disabled";
  const RdmaChoice choice = Choose({Device("mlx5_0", down), Device("mlx5_1", RocePort())});
  EXPECT_EQ(choice.UcxDevices(), "mlx5_1:1");
  ASSERT_THAT(choice.refused, SizeIs(1));
  EXPECT_EQ(choice.refused[0].ToString(),
            "mlx5_0:1: the port is down (Disabled); check cable and switch port, and `ip link set "
            "ens1 up`");
}

TEST(DeviceChoice, InfiniBandNeedsASubnetManager) {
  RdmaPort waiting = InfiniBandPort();
  waiting.state = RdmaPort::State::kInitializing;
  RdmaPort without_lid = InfiniBandPort();
  without_lid.lid = 0;
  const RdmaChoice choice = Choose({Device("mlx5_0", waiting), Device("mlx5_1", without_lid)});
  EXPECT_EQ(choice.UcxDevices(), "");
  ASSERT_THAT(choice.refused, SizeIs(2));
  for (const RefusedPort& refused : choice.refused)
    EXPECT_THAT(refused.advice, HasSubstr("opensm"));
}

TEST(DeviceChoice, RoceNeedsAGid) {
  RdmaPort bare = RocePort();
  bare.gids.clear();
  const RdmaChoice choice = Choose({Device("mlx5_0", bare)});
  EXPECT_EQ(choice.UcxDevices(), "");
  ASSERT_THAT(choice.refused, SizeIs(1));
  EXPECT_THAT(choice.refused[0].reason, HasSubstr("no GID"));
  EXPECT_THAT(choice.refused[0].advice, HasSubstr("IP address"));
}

TEST(DeviceChoice, LinkLocalAndRoceV1AreUsedWithACaution) {
  RdmaPort local = RocePort();
  local.gids[0].ipv4 = false;
  local.gids[0].link_local = true;
  RdmaPort old = RocePort();
  old.gids[0].type = RdmaGid::Type::kRoceV1;
  const RdmaChoice choice = Choose({Device("mlx5_0", local), Device("mlx5_1", old)});
  ASSERT_THAT(choice.chosen, SizeIs(2));
  EXPECT_THAT(choice.chosen[0].caution, HasSubstr("link-local"));
  EXPECT_THAT(choice.chosen[1].caution, HasSubstr("RoCE v1"));
}

TEST(DeviceChoice, LeavesOutAnotherLinkLayerAndSlowPorts) {
  const RdmaChoice choice =
      Choose({Device("mlx5_0", InfiniBandPort(400)), Device("mlx5_1", RocePort(100)),
              Device("mlx5_2", InfiniBandPort(56)), Device("mlx5_3", InfiniBandPort(100))});
  EXPECT_EQ(choice.UcxDevices(), "mlx5_0:1,mlx5_3:1");
  ASSERT_THAT(choice.refused, SizeIs(2));
  EXPECT_EQ(choice.refused[0].name, "mlx5_1:1");
  EXPECT_THAT(choice.refused[0].reason, HasSubstr("Ethernet beside mlx5_0:1"));
  EXPECT_THAT(choice.refused[0].advice, HasSubstr("--rdma-devices=mlx5_1:1"));
  EXPECT_THAT(choice.refused[1].reason, HasSubstr("56 Gb/s beside mlx5_0:1 with 400"));
  for (const RefusedPort& refused : choice.refused) EXPECT_TRUE(refused.unwanted);
}

TEST(DeviceChoice, TakesWhatIsNamedEvenIfItIsSlow) {
  RdmaDevice two_ports = Device("mlx5_1", RocePort(10));
  two_ports.ports.push_back(RocePort(10));
  two_ports.ports[1].number = 2;
  const std::vector<RdmaDevice> devices = {Device("mlx5_0", InfiniBandPort(400)), two_ports};
  EXPECT_EQ(Choose(devices, "mlx5_1").UcxDevices(), "mlx5_1:1,mlx5_1:2");
  EXPECT_EQ(Choose(devices, "mlx5_1:2,mlx5_0:1").UcxDevices(), "mlx5_0:1,mlx5_1:2");
  const RdmaChoice choice = Choose(devices, "mlx5_1:2");
  ASSERT_THAT(choice.refused, SizeIs(2));
  EXPECT_TRUE(choice.refused[0].unwanted);
}

TEST(DeviceChoice, ANameThatDoesNotExistComesWithThoseThatDo) {
  const RdmaChoice choice =
      Choose({Device("mlx5_0", RocePort()), Device("mlx5_1", RocePort())}, "mlx4_0,mlx5_0:2");
  EXPECT_EQ(choice.UcxDevices(), "");
  ASSERT_THAT(choice.refused, SizeIs(4));
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(choice.refused[i].unknown);
    EXPECT_EQ(choice.refused[i].advice, "this host has: mlx5_0:1, mlx5_1:1");
  }
  const RdmaChoice empty = Choose({}, "mlx5_0");
  ASSERT_THAT(empty.refused, SizeIs(1));
  EXPECT_EQ(empty.refused[0].advice, "this host has: none at all");
}

TEST(DeviceChoice, SaysNothingOfDeadPortsThatNobodyNamed) {
  RdmaPort down = RocePort();
  down.state = RdmaPort::State::kDown;
  const std::vector<RdmaDevice> devices = {Device("mlx5_0", RocePort()), Device("mlx5_1", down)};
  EXPECT_THAT(Choose(devices, "mlx5_0").refused, IsEmpty());
  const RdmaChoice choice = Choose(devices, "mlx5_1");
  ASSERT_THAT(choice.refused, SizeIs(2));
  EXPECT_FALSE(choice.refused[0].unwanted);
  EXPECT_THAT(choice.refused[0].reason, HasSubstr("down"));
}

TEST(DeviceChoice, DevicesThatDoNotWorkAreNamed) {
  RdmaDevice closed{.name = "mlx5_0", .problem = "cannot be opened: Permission denied"};
  RdmaDevice iwarp = Device("cxgb4_0", RocePort());
  iwarp.infiniband = false;
  RdmaDevice bare{.name = "mlx5_1"};
  const RdmaChoice choice = Choose({iwarp, closed, bare});
  EXPECT_EQ(choice.UcxDevices(), "");
  ASSERT_THAT(choice.refused, SizeIs(3));
  EXPECT_THAT(choice.refused[0].reason, HasSubstr("iWARP"));
  EXPECT_THAT(choice.refused[1].ToString(), HasSubstr("Permission denied"));
  EXPECT_THAT(choice.refused[1].advice, HasSubstr("/dev/infiniband"));
  EXPECT_THAT(choice.refused[2].reason, HasSubstr("no ports"));
  // By its port, of which nothing is known.
  ASSERT_THAT(Choose({closed}, "mlx5_0:1").refused, SizeIs(1));
  EXPECT_FALSE(Choose({closed}, "mlx5_0:1").refused[0].unknown);
}

}  // namespace
}  // namespace tarn
