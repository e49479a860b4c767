#include "kvstore/directory/inventory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

using Outcome = InventoryState::Outcome;

InventoryChange Change(uint32_t number, bool added = true, uint64_t epoch = 1) {
  InventoryChange change{.added = added, .tier = Tier::kHbm, .address = {0, 0, epoch}};
  std::memcpy(change.key.bytes.data(), &number, sizeof(number));
  return change;
}

TEST(InventoryLogTest, SnapshotComesInChunks) {
  InventoryLog log(2);
  auto batches = log.Snapshot({Change(1), Change(2), Change(3)});
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_TRUE(batches[0].snapshot_begin && !batches[0].snapshot_end);
  EXPECT_TRUE(!batches[1].snapshot_begin && batches[1].snapshot_end);
  EXPECT_EQ(batches[0].sequence, 1u);
  EXPECT_EQ(batches[1].sequence, 2u);
}

TEST(InventoryLogTest, EmptySnapshotIsOneMessage) {
  auto batches = InventoryLog().Snapshot({});
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_TRUE(batches[0].snapshot_begin && batches[0].snapshot_end);
}

TEST(InventoryLogTest, TheLastChangeOfABlockCounts) {
  InventoryLog log;
  log.Record(Change(1));
  log.Record(Change(1, false));
  log.Record(Change(2, false));
  log.Record(Change(2, true, 7));
  auto batches = log.Flush();
  ASSERT_EQ(batches.size(), 1u);
  ASSERT_EQ(batches[0].removes.size(), 1u);
  EXPECT_EQ(batches[0].removes[0].key, Change(1).key);
  ASSERT_EQ(batches[0].adds.size(), 1u);
  EXPECT_EQ(batches[0].adds[0].address.epoch, 7u);
  EXPECT_TRUE(log.Flush().empty());
}

TEST(InventoryStateTest, WantsASnapshotFirst) {
  InventoryState state;
  InventoryBatch delta{.sequence = 1, .adds = {Change(1)}};
  EXPECT_EQ(state.Apply(delta), Outcome::kNeedSnapshot);
  delta.sequence = 2;
  EXPECT_EQ(state.Apply(delta), Outcome::kIgnored) << "asked already";
  EXPECT_TRUE(state.blocks().empty());
}

TEST(InventoryStateTest, AGapMeansANewSnapshot) {
  InventoryLog log;
  InventoryState state;
  for (const auto& batch : log.Snapshot({Change(1)})) {
    EXPECT_EQ(state.Apply(batch), Outcome::kApplied);
  }
  log.Record(Change(2));
  log.Flush();  // lost
  log.Record(Change(3));
  EXPECT_EQ(state.Apply(log.Flush().at(0)), Outcome::kNeedSnapshot);
  for (const auto& batch : log.Snapshot({Change(2), Change(3)})) {
    EXPECT_EQ(state.Apply(batch), Outcome::kApplied);
  }
  EXPECT_TRUE(state.complete());
  EXPECT_EQ(state.blocks().size(), 2u);
}

// A lossy channel: whatever is lost, the receiver ends with what the sender has.
TEST(InventoryTest, ConvergesOverALossyChannel) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    absl::flat_hash_map<InventoryKey, BlockAddress> truth;
    InventoryLog log(3);
    InventoryState state;
    auto snapshot = [&] {
      std::vector<InventoryChange> all;
      for (const auto& [key, address] : truth) all.push_back({true, key.key, key.tier, address});
      return log.Snapshot(all);
    };
    bool need_snapshot = true;
    auto send = [&](const std::vector<InventoryBatch>& batches, double loss) {
      for (const auto& batch : batches) {
        if (random.Chance(loss)) continue;
        need_snapshot |= state.Apply(batch) == Outcome::kNeedSnapshot;
      }
    };
    for (int step = 0; step < 300; ++step) {
      double loss = step < 250 ? 0.1 : 0;
      auto number = static_cast<uint32_t>(random.UniformInt(uint64_t{30}));
      InventoryChange change = Change(number, random.Chance(0.6), random.Next());
      change.added ? (void)(truth[{change.key, change.tier}] = change.address)
                   : (void)truth.erase({change.key, change.tier});
      log.Record(change);
      if (random.Chance(0.3)) send(log.Flush(), loss);
      if (std::exchange(need_snapshot, false)) send(snapshot(), loss);
    }
    // Then nothing is lost any more: further messages show every gap.
    for (int step = 0; step < 200; ++step) {
      log.Record(Change(99, true, step));
      truth[{Change(99).key, Tier::kHbm}] = Change(99, true, step).address;
      send(log.Flush(), 0);
      if (std::exchange(need_snapshot, false)) send(snapshot(), 0);
    }
    EXPECT_EQ(state.blocks(), truth) << "seed " << seed;
  }
}

}  // namespace
}  // namespace tarn::kvstore
