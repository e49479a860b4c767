#include "kvstore/client/rdma_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tarn::kvstore {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RdmaDevice Device(const std::string& name, RdmaPort::State state = RdmaPort::State::kActive) {
  return {.name = name,
          .ports = {{.link_layer = RdmaPort::LinkLayer::kEthernet,
                     .state = state,
                     .gigabits = 100,
                     .gids = {{.type = RdmaGid::Type::kRoceV2, .address = "10.1.2.3"}}}}};
}

class RdmaPortsTest : public testing::Test {
 protected:
  std::unique_ptr<RdmaPorts> Make(const std::vector<RdmaDevice>& devices,
                                  const RdmaPortsOptions& options = {}) {
    auto ports = RdmaPorts::Make(devices, options, &registry_);
    EXPECT_TRUE(ports.ok()) << ports.status();
    return ports.ok() ? *std::move(ports) : nullptr;
  }
  std::string Refusal(const std::vector<RdmaDevice>& devices, const RdmaPortsOptions& options) {
    const auto ports = RdmaPorts::Make(devices, options, &registry_);
    EXPECT_EQ(ports.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(ports.status().message());
  }

  metrics::Registry registry_;
};

TEST_F(RdmaPortsTest, WithoutDevicesUcxLooksForNone) {
  const auto ports = Make({});
  EXPECT_EQ(ports->ucx().tls, "^tcp,ib");
  EXPECT_EQ(ports->ucx().devices, "");
  EXPECT_THAT(ports->Problems(), IsEmpty());
}

TEST_F(RdmaPortsTest, UcxGetsTheChosenPorts) {
  const auto ports = Make({Device("mlx5_0"), Device("mlx5_1")});
  EXPECT_EQ(ports->ucx().tls, "^tcp");
  EXPECT_EQ(ports->ucx().devices, "mlx5_0:1,mlx5_1:1");
  EXPECT_THAT(ports->descriptions(),
              ElementsAre(HasSubstr("mlx5_0:1 RoCE v2"), HasSubstr("mlx5_1:1 RoCE v2")));
  EXPECT_THAT(registry_.Expose(),
              HasSubstr("tarn_rdma_port_active{device=\"mlx5_1\",port=\"1\"} 1"));
  EXPECT_THAT(registry_.Expose(), HasSubstr("tarn_rdma_port_bits_per_second{device=\"mlx5_0\""));
}

TEST_F(RdmaPortsTest, TcpKeepsItsInterfaces) {
  const auto ports = Make({Device("mlx5_0")}, {.transports = "rc,tcp,self"});
  EXPECT_THAT(ports->ucx().devices, HasSubstr("mlx5_0:1,"));
  EXPECT_THAT(ports->ucx().devices, HasSubstr(",lo"));
}

TEST_F(RdmaPortsTest, RefusesNamesThatDoNotExist) {
  EXPECT_THAT(Refusal({Device("mlx5_0")}, {.devices = "mlx5_7"}),
              HasSubstr("this host has: mlx5_0:1"));
}

TEST_F(RdmaPortsTest, RefusesRdmaAloneWithoutADevice) {
  EXPECT_THAT(Refusal({}, {.transports = "rc"}), HasSubstr("\"rc\""));
}

TEST_F(RdmaPortsTest, APortThatGoesAndComesBackIsAProblemMeanwhile) {
  const auto ports = Make({Device("mlx5_0"), Device("mlx5_1")});
  ports->OnEvent({.kind = RdmaPortEvent::Kind::kError, .device = "mlx5_1", .port = 1});
  EXPECT_THAT(ports->Problems(), ElementsAre(HasSubstr("mlx5_1:1: the port is down")));
  EXPECT_THAT(registry_.Expose(),
              HasSubstr("tarn_rdma_port_active{device=\"mlx5_1\",port=\"1\"} 0"));
  ports->OnEvent({.kind = RdmaPortEvent::Kind::kAddressChanged, .device = "mlx5_1", .port = 1});
  EXPECT_THAT(ports->Problems(), ElementsAre(HasSubstr("down")));
  ports->OnEvent({.kind = RdmaPortEvent::Kind::kActive, .device = "mlx5_1", .port = 1});
  EXPECT_THAT(ports->Problems(), IsEmpty());
  EXPECT_THAT(registry_.Expose(),
              HasSubstr("tarn_rdma_port_active{device=\"mlx5_1\",port=\"1\"} 1"));
}

TEST_F(RdmaPortsTest, ALostDeviceTakesItsPortsWithIt) {
  const auto ports = Make({Device("mlx5_1"), Device("mlx5_10")});
  ports->OnEvent({.kind = RdmaPortEvent::Kind::kDeviceLost, .device = "mlx5_1"});
  EXPECT_THAT(ports->Problems(), ElementsAre(HasSubstr("mlx5_1:1: the port is lost")));
}

TEST_F(RdmaPortsTest, APortThatWasDeadAtStartNeedsARestart) {
  const auto ports = Make({Device("mlx5_0"), Device("mlx5_1", RdmaPort::State::kDown)});
  EXPECT_EQ(ports->ucx().devices, "mlx5_0:1");
  EXPECT_THAT(ports->Problems(), ElementsAre(HasSubstr("mlx5_1:1: the port is down")));
  ports->OnEvent({.kind = RdmaPortEvent::Kind::kActive, .device = "mlx5_1", .port = 1});
  EXPECT_THAT(ports->Problems(), ElementsAre(HasSubstr("restart")));
}

}  // namespace
}  // namespace tarn::kvstore
