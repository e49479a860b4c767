// The conformance suite of tiers, with all pages in memory that an RDMA port has pinned: a slab
// that is read and written over RC queue pairs, and an SSD store straight from and to such memory.

#include <glog/logging.h>

#include "common/transport/ucx/ucx_transport.h"
#include "kvstore/tier/conformance.h"
#include "kvstore/tier/slab/slab_harness.h"
#include "kvstore/tier/ssd/ssd_harness.h"
#include "tests/rdma/test_ports.h"

namespace tarn::kvstore {
namespace {

std::unique_ptr<Transport> MakeTransport(EventLoop& loop) {
  auto transport = UcxTransport::Create(OptionsFor(PortsOfThisHost()->owner), loop);
  CHECK(transport.ok()) << transport.status();
  return *std::move(transport);
}

class PinnedSsdHarness : public SsdHarness {
 public:
  PinnedSsdHarness() : SsdHarness(SsdStoreOptions::Io::kUring) {
    transport_ = MakeTransport(driver().loop());
    auto pages = transport_->Allocate(layout().page_bytes() * kPages);
    CHECK(pages.ok()) << pages.status();
    pages_ = *std::move(pages);
  }
  std::span<std::byte> pages() override { return pages_->bytes(); }

 private:
  std::unique_ptr<Transport> transport_;
  std::shared_ptr<RegisteredMemory> pages_;
};

std::unique_ptr<BlockStoreHarness> Slab() {
  return std::make_unique<RealSlabHarness>(&MakeTransport);
}
std::unique_ptr<BlockStoreHarness> Ssd() { return std::make_unique<PinnedSsdHarness>(); }

std::vector<BlockStoreHarnessFactory> IfThereIsAPort(BlockStoreHarnessFactory factory) {
  if (!PortsOfThisHost()) return {};
  return {factory};
}

// Devices.ArePresent says why there is none.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BlockStoreConformance);
INSTANTIATE_TEST_SUITE_P(SlabOverRc, BlockStoreConformance,
                         testing::ValuesIn(IfThereIsAPort(&Slab)));
INSTANTIATE_TEST_SUITE_P(SsdWithPinnedPages, BlockStoreConformance,
                         testing::ValuesIn(IfThereIsAPort(&Ssd)));

}  // namespace
}  // namespace tarn::kvstore
