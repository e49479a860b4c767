#include "kvstore/tier/mem/mem_store.h"

#include <gtest/gtest.h>

#include "kvstore/tier/conformance.h"
#include "kvstore/tier/persistent_conformance.h"

namespace tarn::kvstore {
namespace {

class MemHarness : public PersistentBlockStoreHarness {
 public:
  LoopDriver& driver() override { return driver_; }
  std::span<std::byte> pages() override { return pages_.bytes(); }

  std::unique_ptr<PersistentBlockStore> MakeUnrecovered(const Limits& limits) override {
    const MemStoreOptions options{.layout = layout(),
                                  .slots = limits.slots,
                                  .max_reads = limits.max_reads,
                                  .max_writes = limits.max_writes,
                                  .read_latency = absl::Microseconds(80),
                                  .write_latency = absl::Microseconds(20),
                                  .recover_batch = 7};
    std::erase_if(disk_->blocks, [&](const auto& block) { return block.first >= limits.slots; });
    return std::make_unique<MemStore>(options, &driver_.loop(), disk_);
  }
  void Damage(BlockStore&, int32_t slot, size_t offset) override {
    disk_->blocks.at(slot).bytes()[offset] ^= std::byte{1};
  }
  bool HoldBack(BlockStore& store, bool held_back) override {
    static_cast<MemStore&>(store).SetHeldBack(held_back);
    return true;
  }

 private:
  SimLoopDriver driver_;
  PlainPages pages_;
  std::shared_ptr<MemDisk> disk_ = std::make_shared<MemDisk>();
};

std::unique_ptr<BlockStoreHarness> MakeHarness() { return std::make_unique<MemHarness>(); }
std::unique_ptr<PersistentBlockStoreHarness> MakePersistent() {
  return std::make_unique<MemHarness>();
}

INSTANTIATE_TEST_SUITE_P(Mem, BlockStoreConformance, testing::Values(&MakeHarness));
INSTANTIATE_TEST_SUITE_P(Mem, PersistentBlockStoreConformance, testing::Values(&MakePersistent));

TEST(MemStore, TakesItsTime) {
  SimEventLoop loop;
  PlainPages pages;
  const BlockLayout& layout = BlockStoreHarness::layout();
  const std::span<std::byte> page = pages.bytes().first(layout.page_bytes());
  MemStore store({.layout = layout, .slots = 1, .write_latency = absl::Milliseconds(3)}, &loop,
                 std::make_shared<MemDisk>());
  SealTestBlock(layout, 1, page);
  const absl::Time begin = loop.Now();
  absl::Time end;
  store.Write(0, TestRecord(1), page, [&](const absl::Status&) { end = loop.Now(); });
  loop.RunUntilIdle();
  EXPECT_EQ(end - begin, absl::Milliseconds(3));
}

}  // namespace
}  // namespace tarn::kvstore
