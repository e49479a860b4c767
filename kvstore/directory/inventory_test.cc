#include "kvstore/directory/inventory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

using Outcome = InventoryState::Outcome;

InventoryChange Change(uint32_t number, bool added = true, uint64_t epoch = 1) {
  InventoryChange change{.added = added, .tier = Tier::kHbm, .address = {0, 0, epoch}};
  std::memcpy(change.key.bytes.data(), &number, sizeof(number));
  return change;
}

// Does what an accepted message says.
class Receiver {
 public:
  Outcome Apply(const InventoryBatch& batch) {
    Outcome outcome = state_.Apply(batch);
    if (outcome != Outcome::kApplied) return outcome;
    if (batch.snapshot_begin) blocks_.clear();
    for (const InventoryChange& change : batch.removes) blocks_.erase({change.key, change.tier});
    for (const InventoryChange& change : batch.adds) {
      blocks_[{change.key, change.tier}] = change.address;
    }
    return outcome;
  }
  const InventoryState& state() const { return state_; }
  const absl::flat_hash_map<InventoryKey, BlockAddress>& blocks() const { return blocks_; }

 private:
  InventoryState state_;
  absl::flat_hash_map<InventoryKey, BlockAddress> blocks_;
};

TEST(InventoryLogTest, SnapshotComesInChunks) {
  InventoryLog log({.max_changes = 2});
  auto batches = log.Snapshot({Change(1), Change(2), Change(3)}, true, true);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_TRUE(batches[0].snapshot_begin && !batches[0].snapshot_end);
  EXPECT_TRUE(!batches[1].snapshot_begin && batches[1].snapshot_end);
  EXPECT_EQ(batches[0].sequence, 1u);
  EXPECT_EQ(batches[1].sequence, 2u);
}

TEST(InventoryLogTest, EmptySnapshotIsOneMessage) {
  auto batches = InventoryLog().Snapshot({}, true, true);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_TRUE(batches[0].snapshot_begin && batches[0].snapshot_end);
}

TEST(InventoryLogTest, MessagesAreBoundedInBytes) {
  InventoryLog log({.max_changes = 1000, .max_bytes = 10'000});
  std::vector<InventoryChange> part;
  for (uint32_t i = 0; i < 20; ++i) {
    part.push_back(Change(i));
    part.back().traits.tenant = TenantId(std::string(4000, 't'));
  }
  EXPECT_EQ(log.Snapshot(part, true, true).size(), 10u);
  for (const InventoryChange& change : part) log.Record(change);
  EXPECT_EQ(log.Flush().size(), 10u);
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
  EXPECT_FALSE(state.complete());
}

TEST(InventoryStateTest, AGapMeansANewSnapshot) {
  InventoryLog log;
  Receiver state;
  for (const auto& batch : log.Snapshot({Change(1)}, true, true)) {
    EXPECT_EQ(state.Apply(batch), Outcome::kApplied);
  }
  log.Record(Change(2));
  log.Flush();  // lost
  log.Record(Change(3));
  EXPECT_EQ(state.Apply(log.Flush().at(0)), Outcome::kNeedSnapshot);
  for (const auto& batch : log.Snapshot({Change(2), Change(3)}, true, true)) {
    EXPECT_EQ(state.Apply(batch), Outcome::kApplied);
  }
  EXPECT_TRUE(state.state().complete());
  EXPECT_EQ(state.blocks().size(), 2u);
}

// A lossy channel, and snapshots that take a while: whatever is lost, and whatever changes between
// the parts of a snapshot, the receiver ends with what the sender has.
TEST(InventoryTest, ConvergesOverALossyChannel) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    // Places of the sender, which a snapshot reads in this order.
    std::vector<InventoryChange> places(30);
    for (InventoryChange& place : places) place.added = false;
    InventoryLog log({.max_changes = 3});
    Receiver receiver;
    bool need_snapshot = true;
    auto send = [&](const std::vector<InventoryBatch>& batches, double loss) {
      for (const auto& batch : batches) {
        if (random.Chance(loss)) continue;
        need_snapshot |= receiver.Apply(batch) == Outcome::kNeedSnapshot;
      }
    };
    // A key moves between places.
    auto change = [&] {
      InventoryChange& place = places[random.UniformInt(places.size())];
      if (place.added) log.Record({.added = false, .key = place.key, .tier = place.tier});
      place = Change(static_cast<uint32_t>(random.UniformInt(uint64_t{60})), true, random.Next());
      for (InventoryChange& other : places) {
        if (&other != &place && other.added && other.key == place.key) other.added = false;
      }
      log.Record(place);
    };
    size_t cursor = places.size();  // of the snapshot under way
    auto snapshot_part = [&](double loss) {
      bool begin = std::exchange(need_snapshot, false);
      if (begin) cursor = 0;
      if (cursor >= places.size()) return;
      if (begin) log.DropRecorded();
      std::vector<InventoryChange> part;
      for (size_t end = cursor + 4; cursor < std::min(end, places.size()); ++cursor) {
        if (places[cursor].added) part.push_back(places[cursor]);
      }
      send(log.Snapshot(part, begin, cursor >= places.size()), loss);
    };
    for (int step = 0; step < 600; ++step) {
      // At last nothing is lost any more, and further messages show every gap.
      double loss = step < 400 ? 0.1 : 0;
      change();
      if (random.Chance(0.4)) send(log.Flush(), loss);
      if (random.Chance(0.4)) snapshot_part(loss);
    }
    while (cursor < places.size() || need_snapshot) snapshot_part(0);
    send(log.Flush(), 0);
    absl::flat_hash_map<InventoryKey, BlockAddress> truth;
    for (const InventoryChange& place : places) {
      if (place.added) truth[{place.key, place.tier}] = place.address;
    }
    EXPECT_EQ(receiver.blocks(), truth) << "seed " << seed;
    EXPECT_TRUE(receiver.state().complete());
  }
}

}  // namespace
}  // namespace tarn::kvstore
