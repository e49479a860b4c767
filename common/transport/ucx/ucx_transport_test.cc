#include "common/transport/ucx/ucx_transport.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

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

TEST(UcxTransport, CreateNamesTheOptionThatIsWrong) {
  RealEventLoop loop("ucx-test");
  EXPECT_EQ(UcxTransport::Create({.max_reads_in_flight = 0}, loop).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto unknown = UcxTransport::Create({.tls = "pigeon"}, loop);
  EXPECT_FALSE(unknown.ok());
}

}  // namespace
}  // namespace tarn
