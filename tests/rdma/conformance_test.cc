// The conformance suite of transports over RC queue pairs.

#include "common/transport/conformance.h"

#include <glog/logging.h>

#include "common/transport/ucx/ucx_transport.h"
#include "tests/rdma/test_ports.h"

namespace tarn {
namespace {

// In turn on each of the two ports, so that reads cross the cable.
class RdmaHarness : public TransportHarness {
 public:
  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    const TestPorts& ports = *PortsOfThisHost();
    const std::string& port = made_++ % 2 == 0 ? ports.owner : ports.reader;
    auto transport = UcxTransport::Create(OptionsFor(port), loop);
    CHECK(transport.ok()) << transport.status();
    return *std::move(transport);
  }
  bool LooksAtRegionsLast() const override { return true; }

 private:
  int made_ = 0;
};

std::unique_ptr<TransportHarness> MakeHarness() { return std::make_unique<RdmaHarness>(); }

std::vector<HarnessFactory> IfThereIsAPort() {
  if (!PortsOfThisHost()) return {};
  return {&MakeHarness};
}

// Devices.ArePresent says why there is none.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TransportConformance);
INSTANTIATE_TEST_SUITE_P(Rc, TransportConformance, testing::ValuesIn(IfThereIsAPort()));

}  // namespace
}  // namespace tarn
