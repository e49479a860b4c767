#include "common/transport/ucx/ucx_transport.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "common/transport/conformance.h"

namespace tarn {
namespace {

template <bool kSharedMemoryOnly>
class UcxHarness : public TransportHarness {
 public:
  static std::unique_ptr<TransportHarness> New() { return std::make_unique<UcxHarness>(); }

  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    UcxOptions options;
    if (kSharedMemoryOnly) options.tls = "shm,self";
    auto transport = UcxTransport::Create(options, loop);
    CHECK(transport.ok()) << transport.status();
    return *std::move(transport);
  }
};

INSTANTIATE_TEST_SUITE_P(Default, TransportConformance, testing::Values(&UcxHarness<false>::New));
INSTANTIATE_TEST_SUITE_P(SharedMemory, TransportConformance,
                         testing::Values(&UcxHarness<true>::New));

// Mapped ops are copied in slices, and others have their turn in between.
TEST(UcxTransport, ALongReadDoesNotHoldUpAShortOne) {
  RealEventLoop loop("ucx-test");
  auto owner = UcxTransport::Create({}, loop);
  auto reader = UcxTransport::Create({}, loop);
  ASSERT_TRUE(owner.ok() && reader.ok());
  const auto from = (*owner)->Allocate(16 << 20);
  const auto to = (*reader)->Allocate(17 << 20);
  ASSERT_TRUE(from.ok() && to.ok());
  const auto peer = (*reader)->Connect({(*owner)->Address(), {(*from)->descriptor()}});
  ASSERT_TRUE(peer.ok());
  std::vector<std::string> order;
  std::promise<void> ended;
  const auto read = [&](const char* name, std::span<std::byte> bytes) {
    (*reader)->Read(*peer, {.ops = {{RegionIndex(0), 0, bytes}}}, [&, name](auto statuses) {
      EXPECT_TRUE(statuses.at(0).ok()) << statuses.at(0);
      order.push_back(name);
      if (order.size() == 2) ended.set_value();
    });
  };
  loop.Post([&] {
    read("long", (*to)->bytes().first(16 << 20));
    read("short", (*to)->bytes().last(4096));
  });
  ended.get_future().get();
  loop.Stop();
  EXPECT_EQ(order, (std::vector<std::string>{"short", "long"}));
}

TEST(UcxTransport, CreateNamesTheOptionThatIsWrong) {
  RealEventLoop loop("ucx-test");
  EXPECT_EQ(UcxTransport::Create({.max_reads_in_flight = 0}, loop).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto unknown = UcxTransport::Create({.tls = "pigeon"}, loop);
  EXPECT_FALSE(unknown.ok());
}

}  // namespace
}  // namespace tarn
