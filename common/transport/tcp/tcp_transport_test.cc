#include "common/transport/tcp/tcp_transport.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include "common/transport/conformance.h"

namespace tarn {
namespace {

// With a window of the default size, and with one that every read fills by itself.
template <size_t kWindow>
class TcpHarness : public TransportHarness {
 public:
  static std::unique_ptr<TransportHarness> New() { return std::make_unique<TcpHarness>(); }

  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    auto transport = TcpTransport::Create({.window_bytes = kWindow}, loop);
    CHECK(transport.ok()) << transport.status();
    return *std::move(transport);
  }
};

INSTANTIATE_TEST_SUITE_P(Tcp, TransportConformance,
                         testing::Values(&TcpHarness<size_t{8} << 20>::New));
INSTANTIATE_TEST_SUITE_P(TcpSmallWindow, TransportConformance,
                         testing::Values(&TcpHarness<1>::New));

}  // namespace
}  // namespace tarn
