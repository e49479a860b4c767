#pragma once

// What every BlockStore does, as tests. Include it in one test file and say over what to run:
//
//   INSTANTIATE_TEST_SUITE_P(Mem, BlockStoreConformance, testing::Values(&MakeHarness));

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/runtime/random.h"
#include "kvstore/tier/conformance_harness.h"

namespace tarn::kvstore {

class BlockStoreConformance : public testing::TestWithParam<BlockStoreHarnessFactory>,
                              protected BlockStoreCaller {
 protected:
  BlockStoreConformance() : BlockStoreCaller(GetParam()()) {}
};

TEST_P(BlockStoreConformance, ReadsBackWhatWasWritten) {
  Make();
  EXPECT_EQ(store_->slots(), 8);
  for (int slot = 0; slot < 8; ++slot) EXPECT_TRUE(Write(slot, 100 + slot).ok());
  for (int slot = 7; slot >= 0; --slot) ExpectHolds(slot, 100 + slot);
}

TEST_P(BlockStoreConformance, KeepsEpochAndTokenCount) {
  Make();
  EXPECT_TRUE(Write(3, 7, 0, /*epoch=*/12345, /*tokens=*/5).ok());
  EXPECT_TRUE(Read(3, 7).ok());
  ExpectBlock(7, 1, 12345, 5);
}

TEST_P(BlockStoreConformance, DoesNotChangeThePageThatIsWritten) {
  Make();
  SealTestBlock(layout(), 7, Page(0));
  const std::vector<std::byte> before(Page(0).begin(), Page(0).end());
  EXPECT_TRUE(EndOf([&] { return StartWrite(0, 7, 0); }).ok());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), Page(0).begin()));
}

TEST_P(BlockStoreConformance, AnEmptySlotAndAWrongKeyAreNotFound) {
  Make();
  ExpectHoldsNot(2, 1);
  EXPECT_TRUE(Write(2, 1).ok());
  ExpectHoldsNot(2, 2);
  ExpectHoldsNot(3, 1);
  ExpectHolds(2, 1);
}

TEST_P(BlockStoreConformance, OverwritesASlot) {
  Make();
  for (uint32_t number = 1; number <= 5; ++number) {
    EXPECT_TRUE(Write(4, number).ok());
    ExpectHolds(4, number);
    ExpectHoldsNot(4, number - 1);
  }
}

TEST_P(BlockStoreConformance, ErasesASlot) {
  Make();
  EXPECT_TRUE(Write(1, 1).ok());
  EXPECT_TRUE(Write(2, 2).ok());
  OnLoop([&] {
    Erase(1);
    Erase(5);
  });
  ExpectHoldsNot(1, 1);
  ExpectHolds(2, 2);
  EXPECT_TRUE(Write(1, 1).ok());
  ExpectHolds(1, 1);
}

TEST_P(BlockStoreConformance, OneBlockMayLieInSeveralSlots) {
  Make();
  EXPECT_TRUE(Write(1, 9).ok());
  EXPECT_TRUE(Write(2, 9).ok());
  OnLoop([&] { Erase(1); });
  ExpectHoldsNot(1, 9);
  ExpectHolds(2, 9);
}

TEST_P(BlockStoreConformance, CallsOnOneSlotTakeEffectInOrder) {
  Make();
  OnLoop([&] {
    for (int i = 1; i <= 3; ++i) SealTestBlock(layout(), i, Page(i));
  });
  std::vector<Outcome> outcomes;
  OnLoop([&] {
    outcomes = {StartWrite(0, 1, 1), StartRead(0, 1, 11), StartWrite(0, 2, 2), StartRead(0, 1, 12),
                StartRead(0, 2, 13)};
    Erase(0);
    outcomes.push_back(StartRead(0, 2, 14));
    outcomes.push_back(StartWrite(0, 3, 3));
    outcomes.push_back(StartRead(0, 3, 15));
  });
  Await(outcomes);
  const std::vector<absl::StatusCode> expected{kOk, kOk, kOk, kNotFound, kOk, kNotFound, kOk, kOk};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(outcomes[i]->status.code(), expected[i]) << "call " << i;
  }
  ExpectBlock(1, 11);
  ExpectBlock(2, 13);
  ExpectBlock(3, 15);
}

TEST_P(BlockStoreConformance, ReadsOfOneSlotRunBesideEachOther) {
  Make();
  EXPECT_TRUE(Write(6, 6).ok());
  std::vector<Outcome> outcomes;
  OnLoop([&] {
    for (int page = 10; page < 40; ++page) outcomes.push_back(StartRead(6, 6, page));
  });
  Await(outcomes);
  for (int page = 10; page < 40; ++page) {
    EXPECT_TRUE(outcomes[page - 10]->status.ok());
    ExpectBlock(6, page);
  }
}

// Against a model: random calls, many at a time.
TEST_P(BlockStoreConformance, DoesWhatAMapWouldDo) {
  constexpr int kRounds = 20;
  constexpr int kCalls = 40;
  Make();
  Random random(1);
  std::map<int32_t, uint32_t> model;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<Outcome> outcomes;
    std::vector<std::pair<int, absl::StatusCode>> expected;  // block that is read, or -1
    OnLoop([&] {
      for (int page = 0; page < kCalls; ++page) {
        const auto slot = static_cast<int32_t>(random.UniformInt(8));
        const auto number = static_cast<uint32_t>(random.UniformInt(4));
        const uint64_t kind = random.UniformInt(10);
        if (kind == 0) {
          Erase(slot);
          model.erase(slot);
          outcomes.push_back(nullptr);
          expected.emplace_back(-1, kOk);
        } else if (kind < 4) {
          SealTestBlock(layout(), number, Page(page));
          outcomes.push_back(StartWrite(slot, number, page));
          model[slot] = number;
          expected.emplace_back(-1, kOk);
        } else {
          const auto held = model.find(slot);
          const bool found = held != model.end() && held->second == number;
          outcomes.push_back(StartRead(slot, number, page));
          expected.emplace_back(found ? static_cast<int>(number) : -1, found ? kOk : kNotFound);
        }
      }
    });
    for (int page = 0; page < kCalls; ++page) {
      if (outcomes[page] == nullptr) continue;
      Await({outcomes[page]});
      ASSERT_EQ(outcomes[page]->status.code(), expected[page].second)
          << "round " << round << ", call " << page << ": " << outcomes[page]->status;
      if (expected[page].first >= 0) ExpectBlock(expected[page].first, page);
    }
  }
}

TEST_P(BlockStoreConformance, APageThatHoldsNoSuchBlockIsNotWritten) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  EXPECT_TRUE(Write(1, 1).ok());
  OnLoop([&] {
    SealTestBlock(layout(), 2, Page(2));
    SealTestBlock(layout(), 3, Page(3));
    InvalidateBlock(Page(3));
  });
  EXPECT_EQ(EndOf([&] { return StartWrite(0, 4, 2); }).code(), kAborted);
  EXPECT_EQ(EndOf([&] { return StartWrite(1, 3, 3); }).code(), kAborted);
  for (const uint32_t number : {1, 2, 3, 4}) {
    ExpectHoldsNot(0, number);
    ExpectHoldsNot(1, number);
  }
}

TEST_P(BlockStoreConformance, APageThatIsReusedDuringItsWriteLeavesNothing) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  OnLoop([&] { SealTestBlock(layout(), 2, Page(2)); });
  const bool held_back = harness_->HoldBack(*store_, true);
  Outcome write;
  OnLoop([&] {
    write = StartWrite(0, 2, 2);
    InvalidateBlock(Page(2));
    Random(99).Fill(PayloadOf(Page(2)));
  });
  harness_->HoldBack(*store_, false);
  Await({write});
  ExpectHoldsNot(0, 1);
  // Where the device was as quick as that, the block is whole.
  if (write->status.ok() && !held_back) return ExpectHolds(0, 2);
  EXPECT_EQ(write->status.code(), kAborted) << write->status;
  ExpectHoldsNot(0, 2);
}

TEST_P(BlockStoreConformance, ADamagedHeaderIsSeen) {
  Make();
  for (size_t offset = 0; offset < sizeof(BlockHeader); ++offset) {
    ASSERT_TRUE(Write(5, 5).ok());
    Damage(5, offset);
    ASSERT_EQ(Read(5, 5).code(), kDataLoss) << "byte " << offset;
    ExpectHoldsNot(5, 5);
  }
  EXPECT_EQ(Stats().verify_failures, sizeof(BlockHeader));
}

TEST_P(BlockStoreConformance, ADamagedPayloadIsSeen) {
  Make();
  const size_t size = layout().payload_bytes();
  for (const size_t offset : {size_t{0}, size / 3, size / 2, size - 1}) {
    ASSERT_TRUE(Write(5, 5).ok());
    Damage(5, layout().payload_offset() + offset);
    EXPECT_EQ(Read(5, 5).code(), kDataLoss) << "byte " << offset;
    ExpectHoldsNot(5, 5);
  }
  ASSERT_TRUE(Write(5, 5).ok());
  ExpectHolds(5, 5);
}

TEST_P(BlockStoreConformance, DamageStaysInItsSlot) {
  Make();
  for (int slot = 0; slot < 8; ++slot) ASSERT_TRUE(Write(slot, slot).ok());
  Damage(3, layout().payload_offset());
  for (int slot = 0; slot < 8; ++slot) {
    if (slot != 3) ExpectHolds(slot, slot);
  }
  EXPECT_EQ(Read(3, 3).code(), kDataLoss);
}

TEST_P(BlockStoreConformance, QueuesAreBounded) {
  Make({.slots = 8, .max_reads = 3, .max_writes = 2});
  EXPECT_TRUE(Write(7, 7).ok());
  OnLoop([&] {
    for (int page = 1; page <= 3; ++page) SealTestBlock(layout(), page, Page(page));
  });
  std::vector<Outcome> writes;
  std::vector<Outcome> reads;
  BlockStoreStats stats;
  OnLoop([&] {
    writes = {StartWrite(1, 1, 1), StartWrite(2, 2, 2), StartWrite(7, 3, 3)};
    for (int page = 4; page < 8; ++page) reads.push_back(StartRead(6, 6, page));
    stats = store_->Stats();
  });
  EXPECT_EQ(stats.writes_queued, 2);
  EXPECT_EQ(stats.reads_queued, 3);
  Await(writes);
  Await(reads);
  EXPECT_TRUE(writes[0]->status.ok() && writes[1]->status.ok());
  EXPECT_EQ(writes[2]->status.code(), kResourceExhausted);
  EXPECT_EQ(reads[2]->status.code(), kNotFound);
  EXPECT_EQ(reads[3]->status.code(), kResourceExhausted);
  ExpectHolds(1, 1);
  ExpectHoldsNot(7, 7);
  ExpectHoldsNot(7, 3);
  EXPECT_EQ(Stats().writes_queued + Stats().reads_queued, 0);
}

TEST_P(BlockStoreConformance, ADeadlineInThePastEndsARead) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  const absl::Time past = driver().loop().Now() - absl::Seconds(1);
  EXPECT_EQ(EndOf([&] { return StartRead(0, 1, 1, past); }).code(), kDeadlineExceeded);
  const absl::Time far = driver().loop().Now() + absl::Hours(1);
  EXPECT_TRUE(EndOf([&] { return StartRead(0, 1, 1, far); }).ok());
}

TEST_P(BlockStoreConformance, AReadThatIsNotBegunEndsAtItsDeadline) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  if (!harness_->HoldBack(*store_, true)) GTEST_SKIP() << "this device cannot be held back";
  std::vector<Outcome> soon;
  Outcome late;
  OnLoop([&] {
    SealTestBlock(layout(), 2, Page(2));
    const absl::Time deadline = driver().loop().Now() + absl::Milliseconds(20);
    soon.push_back(StartRead(0, 1, 10, deadline));
    late = StartWrite(0, 2, 2);
    soon.push_back(StartRead(0, 2, 11, deadline));  // waits behind the write
  });
  Await(soon);
  EXPECT_EQ(soon[0]->status.code(), kDeadlineExceeded);
  EXPECT_EQ(soon[1]->status.code(), kDeadlineExceeded);
  OnLoop([&] { EXPECT_EQ(late->times, 0); });
  harness_->HoldBack(*store_, false);
  Await({late});
  EXPECT_TRUE(late->status.ok()) << late->status;
  ExpectHolds(0, 2);
}

TEST_P(BlockStoreConformance, AStoreDestroyedWithCallsUnderWayEndsEachOnce) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  OnLoop([&] {
    for (int page = 0; page < 8; ++page) SealTestBlock(layout(), page, Page(page));
  });
  std::vector<Outcome> outcomes;
  OnLoop([&] {
    for (int i = 0; i < 8; ++i) {
      outcomes.push_back(StartRead(0, 1, 10 + i));
      outcomes.push_back(StartWrite(i / 2, i, i));
      outcomes.push_back(StartRead(i / 2, i, 20 + i));
    }
    calling_ = true;
    store_.reset();
    calling_ = false;
  });
  Await(outcomes);
  for (const Outcome& outcome : outcomes) {
    const absl::StatusCode code = outcome->status.code();
    EXPECT_TRUE(code == kOk || code == kCancelled || code == kNotFound) << outcome->status;
  }
  driver().Pass(absl::Milliseconds(1));
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome->times, 1);
}

TEST_P(BlockStoreConformance, WhatIsHeldBackWhenTheStoreGoesIsCancelled) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  if (!harness_->HoldBack(*store_, true)) GTEST_SKIP() << "this device cannot be held back";
  std::vector<Outcome> outcomes;
  OnLoop([&] {
    SealTestBlock(layout(), 2, Page(2));
    outcomes = {StartRead(0, 1, 10), StartWrite(1, 2, 2), StartRead(1, 2, 11)};
    store_.reset();
  });
  Await(outcomes);
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome->status.code(), kCancelled);
}

TEST_P(BlockStoreConformance, AStoreMayGoAfterItsLoop) {
  Make();
  OnLoop([&] {
    for (int page = 0; page < 8; ++page) {
      SealTestBlock(layout(), page, Page(page));
      StartWrite(page, page, page);
    }
  });
  driver().Stop();
  store_.reset();
}

TEST_P(BlockStoreConformance, DoneMayCallTheStoreAndDestroyIt) {
  Make();
  Outcome last = std::make_shared<StoreOutcome>();
  OnLoop([&] {
    SealTestBlock(layout(), 1, Page(0));
    store_->Write(0, TestRecord(1), Page(0), [&, this](absl::Status written) {
      EXPECT_TRUE(written.ok());
      store_->Read(0, TestKey(1), Page(1), absl::InfiniteFuture(), [&, this](absl::Status read) {
        EXPECT_TRUE(read.ok());
        store_.reset();
        Note(last)(read);
      });
    });
  });
  Await({last});
  ExpectBlock(1, 1);
}

TEST_P(BlockStoreConformance, Counts) {
  Make();
  EXPECT_TRUE(Write(0, 1).ok());
  EXPECT_TRUE(Write(1, 2).ok());
  ExpectHolds(0, 1);
  ExpectHoldsNot(0, 2);
  const BlockStoreStats stats = Stats();
  EXPECT_EQ(stats.writes, 2u);
  EXPECT_EQ(stats.written_bytes, 2 * layout().page_bytes());
  EXPECT_GE(stats.device_written_bytes, stats.written_bytes);
  EXPECT_EQ(stats.reads, 1u);
  EXPECT_EQ(stats.read_bytes, layout().page_bytes());
  EXPECT_EQ(stats.read_errors + stats.write_errors + stats.verify_failures, 0u);
}

}  // namespace tarn::kvstore
