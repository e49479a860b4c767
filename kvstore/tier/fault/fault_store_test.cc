#include "kvstore/tier/fault/fault_store.h"

#include <gtest/gtest.h>

#include "kvstore/tier/conformance.h"
#include "kvstore/tier/mem/mem_store.h"
#include "kvstore/tier/persistent_conformance.h"

namespace tarn::kvstore {
namespace {

// Over a MemStore, with calls delayed or not.
class FaultHarness : public PersistentBlockStoreHarness {
 public:
  explicit FaultHarness(StoreFaultPlan plan) : plan_(std::move(plan)) {}

  LoopDriver& driver() override { return driver_; }
  std::span<std::byte> pages() override { return pages_.bytes(); }
  std::unique_ptr<PersistentBlockStore> MakeUnrecovered(const Limits& limits) override {
    std::erase_if(disk_->blocks, [&](const auto& block) { return block.first >= limits.slots; });
    auto base = std::make_unique<MemStore>(
        MemStoreOptions{layout(), limits.slots, limits.max_reads, limits.max_writes},
        &driver_.loop(), disk_);
    base_ = base.get();
    const FaultStoreOptions options{layout(), limits.max_reads, limits.max_writes};
    return std::make_unique<FaultPersistentBlockStore>(std::move(base), options, &driver_.loop(),
                                                       plan_);
  }
  void Damage(BlockStore&, int32_t slot, size_t offset) override {
    disk_->blocks.at(slot).bytes()[offset] ^= std::byte{1};
  }
  bool HoldBack(BlockStore&, bool held_back) override {
    base_->SetHeldBack(held_back);
    return true;
  }

 private:
  SimLoopDriver driver_;
  PlainPages pages_;
  const StoreFaultPlan plan_;
  std::shared_ptr<MemDisk> disk_ = std::make_shared<MemDisk>();
  MemStore* base_ = nullptr;  // of the last store made
};

template <typename Harness>
std::unique_ptr<Harness> NoFaults() {
  return std::make_unique<FaultHarness>(NoStoreFaults());
}

INSTANTIATE_TEST_SUITE_P(NoFaults, BlockStoreConformance,
                         testing::Values(&NoFaults<BlockStoreHarness>));
INSTANTIATE_TEST_SUITE_P(NoFaults, PersistentBlockStoreConformance,
                         testing::Values(&NoFaults<PersistentBlockStoreHarness>));

class FaultStoreTest : public testing::Test, protected BlockStoreCaller {
 protected:
  FaultStoreTest() : BlockStoreCaller(std::make_unique<FaultHarness>(NoStoreFaults())) { Make(); }

  FaultPersistentBlockStore& store() { return static_cast<FaultPersistentBlockStore&>(*store_); }
  void SetFault(const StoreFault& fault) {
    store().SetPlan([fault](StoreCall, int32_t) { return fault; });
  }
};

TEST_F(FaultStoreTest, AReadThatFailsLeavesTheBlock) {
  ASSERT_TRUE(Write(0, 1).ok());
  SetFault({.error = absl::UnavailableError("injected")});
  EXPECT_EQ(Read(0, 1).code(), kUnavailable);
  SetFault({});
  ExpectHolds(0, 1);
  EXPECT_EQ(Stats().read_errors, 1u);
}

TEST_F(FaultStoreTest, AWriteThatFailsLeavesNothing) {
  ASSERT_TRUE(Write(0, 1).ok());
  SetFault({.error = absl::ResourceExhaustedError("injected")});
  EXPECT_EQ(Write(0, 2).code(), kResourceExhausted);
  SetFault({});
  ExpectHoldsNot(0, 1);
  ExpectHoldsNot(0, 2);
}

TEST_F(FaultStoreTest, ADamagedReadIsSeenAndEndsTheBlock) {
  const uint64_t bit = layout().payload_offset() * 8 + 77;
  for (const StoreFault& fault : {StoreFault{.flip_bit = bit}, StoreFault{.cut = 5000}}) {
    ASSERT_TRUE(Write(0, 1).ok());
    SetFault(fault);
    EXPECT_EQ(Read(0, 1).code(), kDataLoss);
    SetFault({});
    ExpectHoldsNot(0, 1);
  }
  EXPECT_EQ(Stats().verify_failures, 2u);
}

TEST_F(FaultStoreTest, ADelayKeepsTheOrderOfASlot) {
  ASSERT_TRUE(Write(0, 1).ok());
  SealTestBlock(layout(), 2, Page(2));
  store().SetPlan([](StoreCall call, int32_t) {
    return StoreFault{.delay = call == StoreCall::kWrite ? absl::Seconds(1) : absl::ZeroDuration()};
  });
  const absl::Time begin = driver().loop().Now();
  const std::vector<Outcome> outcomes{StartWrite(0, 2, 2), StartRead(0, 2, 3)};
  Await(outcomes);
  EXPECT_TRUE(outcomes[1]->status.ok());
  ExpectBlock(2, 3);
  EXPECT_GE(driver().loop().Now() - begin, absl::Seconds(1));
}

TEST_F(FaultStoreTest, ADelayPastTheDeadlineEndsARead) {
  ASSERT_TRUE(Write(0, 1).ok());
  SetFault({.delay = absl::Seconds(5)});
  const absl::Time deadline = driver().loop().Now() + absl::Seconds(2);
  EXPECT_EQ(EndOf([&] { return StartRead(0, 1, 1, deadline); }).code(), kDeadlineExceeded);
  EXPECT_EQ(driver().loop().Now(), deadline);
}

TEST_F(FaultStoreTest, EqualSeedsGiveEqualFaultsAtTheirRates) {
  const StoreFaultRates rates{.delay = 0.5, .read_error = 0.1, .write_error = 0.3, .corrupt = 0.2};
  StoreFaultPlan first = SeededStoreFaults(7, rates);
  StoreFaultPlan second = SeededStoreFaults(7, rates);
  int errors = 0;
  int corrupt = 0;
  for (int i = 0; i < 2000; ++i) {
    const StoreCall call = i % 2 == 0 ? StoreCall::kRead : StoreCall::kWrite;
    const StoreFault a = first(call, i);
    const StoreFault b = second(call, i);
    EXPECT_TRUE(a.delay == b.delay && a.error == b.error && a.flip_bit == b.flip_bit);
    errors += a.error.ok() ? 0 : 1;
    corrupt += a.flip_bit.has_value() ? 1 : 0;
    EXPECT_FALSE(a.flip_bit.has_value() && call == StoreCall::kWrite);
  }
  EXPECT_NEAR(errors, 400, 80);
  EXPECT_NEAR(corrupt, 200, 60);
}

// Whatever goes wrong, each call ends, and what was read well is the block.
TEST_F(FaultStoreTest, UnderSeededFaultsNothingIsReadWrong) {
  store().SetPlan(SeededStoreFaults(
      11,
      {.delay = 0.3, .read_error = 0.1, .write_error = 0.1, .short_read = 0.1, .corrupt = 0.1}));
  Random random(12);
  int good = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<Outcome> outcomes;
    std::vector<std::pair<uint32_t, int>> reads;
    for (int page = 0; page < 32; ++page) {
      const auto slot = static_cast<int32_t>(random.UniformInt(8));
      const auto number = static_cast<uint32_t>(random.UniformInt(2));
      if (random.Chance(0.4)) {
        SealTestBlock(layout(), number, Page(page));
        outcomes.push_back(StartWrite(slot, number, page));
        reads.emplace_back(0, -1);
      } else {
        outcomes.push_back(StartRead(slot, number, page));
        reads.emplace_back(number, page);
      }
    }
    Await(outcomes);
    for (size_t i = 0; i < reads.size(); ++i) {
      if (reads[i].second < 0 || !outcomes[i]->status.ok()) continue;
      ExpectBlock(reads[i].first, reads[i].second);
      ++good;
    }
  }
  EXPECT_GT(good, 100);
}

}  // namespace
}  // namespace tarn::kvstore
