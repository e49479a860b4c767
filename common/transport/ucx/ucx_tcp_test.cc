// The conformance suite over TCP. Not part of the tests: UCX 1.13.1 aborts the owner when a reader
// disconnects in the middle of a read (docs/decisions/0004-ucx.md). It is here to be run by hand.

#include <glog/logging.h>
#include <gtest/gtest.h>

#include "common/transport/conformance.h"
#include "common/transport/ucx/ucx_transport.h"

namespace tarn {
namespace {

class TcpHarness : public TransportHarness {
 public:
  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    auto transport = UcxTransport::Create({.tls = "tcp", .devices = "lo"}, loop);
    CHECK(transport.ok()) << transport.status();
    return *std::move(transport);
  }
};

std::unique_ptr<TransportHarness> MakeHarness() { return std::make_unique<TcpHarness>(); }

INSTANTIATE_TEST_SUITE_P(Tcp, TransportConformance, testing::Values(&MakeHarness));

}  // namespace
}  // namespace tarn
