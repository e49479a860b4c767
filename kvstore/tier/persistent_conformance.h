#pragma once

// What every PersistentBlockStore does besides (conformance.h runs for it too), as tests. Include
// it in one test file and say over what to run:
//
//   INSTANTIATE_TEST_SUITE_P(Mem, PersistentBlockStoreConformance, testing::Values(&MakeHarness));

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kvstore/tier/conformance_harness.h"

namespace tarn::kvstore {

class PersistentBlockStoreConformance
    : public testing::TestWithParam<PersistentBlockStoreHarnessFactory>,
      protected BlockStoreCaller {
 protected:
  using Recovered = PersistentBlockStore::Recovered;

  PersistentBlockStoreConformance() : BlockStoreCaller(GetParam()()) {}
  PersistentBlockStoreHarness& harness() {
    return static_cast<PersistentBlockStoreHarness&>(*harness_);
  }

  // Ends the store and makes it again; what it tells of, by slot.
  std::map<int32_t, BlockRecord> Reopen(const BlockStoreHarness::Limits& limits = {}) {
    Destroy();
    std::unique_ptr<PersistentBlockStore> store = harness().MakeUnrecovered(limits);
    std::map<int32_t, BlockRecord> told;
    Outcome done = std::make_shared<StoreOutcome>();
    double before = 0;
    OnLoop([&] {
      calling_ = true;
      store->Recover(
          [&](const std::vector<Recovered>& blocks, double percent) {
            EXPECT_FALSE(calling_ || done->times > 0);
            EXPECT_GE(percent, before);
            EXPECT_LE(percent, 100.0);
            before = percent;
            for (const Recovered& block : blocks) {
              EXPECT_TRUE(told.emplace(block.slot, block.record).second) << "told twice";
            }
          },
          Note(done));
      calling_ = false;
    });
    Await({done});
    EXPECT_TRUE(done->status.ok()) << done->status;
    store_ = std::move(store);
    return told;
  }
  static std::vector<int32_t> SlotsOf(const std::map<int32_t, BlockRecord>& told) {
    std::vector<int32_t> slots;
    for (const auto& [slot, record] : told) slots.push_back(slot);
    return slots;
  }
};

TEST_P(PersistentBlockStoreConformance, ANewStoreIsEmpty) {
  EXPECT_TRUE(Reopen().empty());
  ExpectHoldsNot(0, 1);
}

TEST_P(PersistentBlockStoreConformance, TellsOfWhatWasWrittenAndServesIt) {
  Make();
  for (int slot = 0; slot < 8; ++slot) {
    ASSERT_TRUE(Write(slot, 50 + slot, 0, /*epoch=*/slot, /*tokens=*/16 - slot).ok());
  }
  for (int life = 0; life < 3; ++life) {
    const std::map<int32_t, BlockRecord> told = Reopen();
    ASSERT_EQ(told.size(), 8u);
    for (const auto& [slot, record] : told) {
      const BlockRecord written = TestRecord(50 + slot, 16 - slot);
      EXPECT_EQ(record.key, written.key);
      EXPECT_EQ(record.parent, written.parent);
      EXPECT_EQ(record.token_count, written.token_count);
      EXPECT_EQ(record.traits, written.traits);
      EXPECT_EQ(record.last_use, written.last_use);
      EXPECT_EQ(record.uses, 0u);
    }
  }
  for (int slot = 0; slot < 8; ++slot) {
    EXPECT_TRUE(Read(slot, 50 + slot).ok());
    ExpectBlock(50 + slot, 1, slot, 16 - slot);
  }
}

TEST_P(PersistentBlockStoreConformance, DoesNotTellOfWhatIsGone) {
  Make();
  for (int slot = 0; slot < 6; ++slot) ASSERT_TRUE(Write(slot, slot).ok());
  OnLoop([&] {
    Erase(0);
    SealTestBlock(layout(), 9, Page(9));
    InvalidateBlock(Page(9));
  });
  ASSERT_TRUE(Write(1, 11).ok());
  EXPECT_EQ(EndOf([&] { return StartWrite(2, 9, 9); }).code(), kAborted);
  Damage(3, layout().payload_offset());
  EXPECT_EQ(Read(3, 3).code(), kDataLoss);
  const std::map<int32_t, BlockRecord> told = Reopen();
  EXPECT_EQ(SlotsOf(told), (std::vector<int32_t>{1, 4, 5}));
  EXPECT_EQ(told.at(1).key, TestKey(11));
}

TEST_P(PersistentBlockStoreConformance, RemembersUses) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  ASSERT_TRUE(Write(1, 2).ok());
  const absl::Time begin = driver().loop().Now();
  for (int i = 0; i < 3; ++i) ExpectHolds(0, 1);
  ExpectHoldsNot(0, 2);
  std::map<int32_t, BlockRecord> told = Reopen();
  EXPECT_EQ(told.at(0).uses, 3u);
  EXPECT_GE(told.at(0).last_use, begin - absl::Seconds(1));
  EXPECT_EQ(told.at(1).uses, 0u);
  EXPECT_EQ(told.at(1).last_use, TestRecord(2).last_use);
  ExpectHolds(0, 1);
  EXPECT_EQ(Reopen().at(0).uses, 4u);
  ASSERT_TRUE(Write(0, 3).ok());
  EXPECT_EQ(Reopen().at(0).uses, 0u) << "a new block has the uses of the old one";
}

TEST_P(PersistentBlockStoreConformance, DamageBetweenLivesShowsWhenItIsRead) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  ASSERT_TRUE(Write(1, 2).ok());
  Damage(0, layout().payload_offset() + 5);
  EXPECT_EQ(Reopen().size(), 2u);
  EXPECT_EQ(Read(0, 1).code(), kDataLoss);
  ExpectHolds(1, 2);
  EXPECT_EQ(SlotsOf(Reopen()), (std::vector<int32_t>{1}));
}

TEST_P(PersistentBlockStoreConformance, BlocksMayBeReadAndErasedAsTheyAreToldOf) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  ASSERT_TRUE(Write(1, 2).ok());
  Destroy();
  std::unique_ptr<PersistentBlockStore> store = harness().MakeUnrecovered({});
  store_ = nullptr;
  std::vector<Outcome> outcomes{std::make_shared<StoreOutcome>()};
  OnLoop([&] {
    store->Recover(
        [&](const std::vector<Recovered>& blocks, double) {
          for (const Recovered& block : blocks) {
            if (block.slot == 1) store->Erase(1);
            outcomes.push_back(std::make_shared<StoreOutcome>());
            store->Read(block.slot, block.record.key, Page(10 + block.slot), absl::InfiniteFuture(),
                        Note(outcomes.back()));
          }
        },
        Note(outcomes[0]));
  });
  Await({outcomes[0]});
  store_ = std::move(store);
  Await(outcomes);
  ASSERT_EQ(outcomes.size(), 3u);
  EXPECT_TRUE(outcomes[1]->status.ok());
  ExpectBlock(1, 10);
  EXPECT_EQ(outcomes[2]->status.code(), kNotFound);
  EXPECT_EQ(SlotsOf(Reopen()), (std::vector<int32_t>{0}));
}

TEST_P(PersistentBlockStoreConformance, TellsOfManyAndTakesFewerOrMoreSlots) {
  constexpr int kSlots = 300;
  Make({.slots = kSlots});
  for (int begin = 0; begin < kSlots; begin += 50) {
    std::vector<Outcome> outcomes;
    OnLoop([&] {
      for (int page = 0; page < 50; ++page) {
        SealTestBlock(layout(), begin + page, Page(page));
        outcomes.push_back(StartWrite(begin + page, begin + page, page));
      }
    });
    Await(outcomes);
  }
  EXPECT_EQ(Reopen({.slots = kSlots}).size(), size_t{kSlots});
  ExpectHolds(kSlots - 1, kSlots - 1);
  EXPECT_EQ(Reopen({.slots = 100}).size(), 100u);
  ExpectHolds(99, 99);
  EXPECT_EQ(Reopen({.slots = 200}).size(), 100u) << "slots that were given up came back";
  ExpectHolds(50, 50);
  EXPECT_TRUE(Write(199, 1).ok());
  ExpectHolds(199, 1);
}

TEST_P(PersistentBlockStoreConformance, AStoreDestroyedDuringRecoverEndsItOnce) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  Destroy();
  std::unique_ptr<PersistentBlockStore> store = harness().MakeUnrecovered({});
  Outcome done = std::make_shared<StoreOutcome>();
  bool gone = false;
  OnLoop([&] {
    store->Recover([&](const auto&, double) { EXPECT_FALSE(gone); }, Note(done));
    store.reset();
    gone = true;
  });
  Await({done});
  EXPECT_EQ(done->status.code(), kCancelled) << done->status;
  EXPECT_EQ(Reopen().size(), 1u);
}

// A store that was written to while its loop stopped, as in a shutdown.
TEST_P(PersistentBlockStoreConformance, WhatWasNotWrittenIsNotTold) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  if (!harness_->HoldBack(*store_, true)) GTEST_SKIP() << "this device cannot be held back";
  Outcome write;
  OnLoop([&] {
    SealTestBlock(layout(), 2, Page(2));
    write = StartWrite(1, 2, 2);
  });
  EXPECT_EQ(SlotsOf(Reopen()), (std::vector<int32_t>{0}));
  Await({write});
  EXPECT_EQ(write->status.code(), kCancelled);
}

}  // namespace tarn::kvstore
