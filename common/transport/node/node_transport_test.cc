#include "common/transport/node/node_transport.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <future>

#include "common/transport/conformance.h"

namespace tarn {
namespace {

class NodeHarness : public TransportHarness {
 public:
  explicit NodeHarness(NodeTransportOptions options) : options_(std::move(options)) {}

  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    auto transport = NodeTransport::Create(options_, loop);
    CHECK(transport.ok()) << transport.status();
    return *std::move(transport);
  }

 private:
  const NodeTransportOptions options_;
};

// What neighbours use.
std::unique_ptr<TransportHarness> Mapped() {
  return std::make_unique<NodeHarness>(NodeTransportOptions{});
}
// UCX reaches only itself, as between hosts without RDMA: TCP sends from UCX's memory.
std::unique_ptr<TransportHarness> Apart() {
  return std::make_unique<NodeHarness>(NodeTransportOptions{.ucx = {.tls = "self"}});
}
std::unique_ptr<TransportHarness> TcpOnly() {
  return std::make_unique<NodeHarness>(NodeTransportOptions{.one_sided = false});
}

INSTANTIATE_TEST_SUITE_P(Mapped, TransportConformance, testing::Values(&Mapped));
INSTANTIATE_TEST_SUITE_P(Apart, TransportConformance, testing::Values(&Apart));
INSTANTIATE_TEST_SUITE_P(TcpOnly, TransportConformance, testing::Values(&TcpOnly));

// Two nodes of which one has no UCX, in both directions.
TEST(NodeTransport, ANodeWithoutUcxIsReadAndReads) {
  RealEventLoop loop("node-test");
  auto with = NodeTransport::Create({}, loop);
  auto without = NodeTransport::Create({.one_sided = false}, loop);
  ASSERT_TRUE(with.ok() && without.ok());
  for (Transport* owner : {with->get(), without->get()}) {
    Transport* reader = owner == with->get() ? without->get() : with->get();
    auto from = owner->Allocate(1 << 16);
    auto to = reader->Allocate(1 << 16);
    ASSERT_TRUE(from.ok() && to.ok());
    Random(1).Fill((*from)->bytes());
    const auto peer = reader->Connect({owner->Address(), {(*from)->descriptor()}});
    ASSERT_TRUE(peer.ok()) << peer.status();
    std::promise<std::vector<absl::Status>> read;
    loop.Post([&] {
      reader->Read(*peer, {.ops = {{RegionIndex(0), 0, (*to)->bytes()}}},
                   [&](std::vector<absl::Status> statuses) { read.set_value(statuses); });
    });
    EXPECT_TRUE(read.get_future().get().at(0).ok());
    EXPECT_EQ(std::memcmp((*from)->bytes().data(), (*to)->bytes().data(), 1 << 16), 0);
  }
  loop.Stop();
}

TEST(NodeTransport, AFailedConnectSaysWhyOfBoth) {
  RealEventLoop loop("node-test");
  auto reader = NodeTransport::Create({}, loop);
  ASSERT_TRUE(reader.ok());
  PeerAddress address;
  {
    auto owner = NodeTransport::Create({}, loop);
    ASSERT_TRUE(owner.ok());
    address.worker = (*owner)->Address();
    address.regions = {(*(*owner)->Allocate(4096))->descriptor()};
  }
  const absl::Status status = (*reader)->Connect(address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(status).find("not by UCX"), std::string::npos) << status;
  EXPECT_NE(Message(status).find("127.0.0.1:"), std::string::npos) << status;
}

}  // namespace
}  // namespace tarn
