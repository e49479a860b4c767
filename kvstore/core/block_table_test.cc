#include "kvstore/core/block_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/runtime/random.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"
#include "kvstore/core/s3_fifo.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

BlockKey Key(uint32_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  key.bytes[15] = 1;
  return key;
}

BlockTable Table(int pages) { return BlockTable(pages, std::make_unique<LruPolicy>(pages)); }

// Caches a block that nobody holds.
int32_t Cache(BlockTable& table, uint32_t key, std::optional<uint32_t> parent = std::nullopt) {
  int32_t page = table.TryTake(kNow)->page;
  std::optional<BlockKey> parent_key;
  if (parent.has_value()) parent_key = Key(*parent);
  EXPECT_TRUE(table.Publish(page, Key(key), parent_key, {}, kNow));
  table.LetGo(page, kNow);
  return page;
}

// Takes one page and says which block had to go for it.
std::optional<BlockKey> Squeeze(BlockTable& table) { return table.TryTake(kNow)->evicted; }

TEST(BlockTableTest, PrivatePageIsFreeWhenLetGo) {
  BlockTable table = Table(1);
  int32_t page = table.TryTake(kNow)->page;
  EXPECT_EQ(table.free_pages(), 0);
  EXPECT_FALSE(table.TryTake(kNow).has_value());
  table.LetGo(page, kNow);
  EXPECT_EQ(table.free_pages(), 1);
}

TEST(BlockTableTest, EachUseOfAPageHasItsEpoch) {
  BlockTable table = Table(1);
  std::set<uint64_t> epochs;
  for (int use = 0; use < 3; ++use) {
    int32_t page = table.TryTake(kNow)->page;
    EXPECT_TRUE(epochs.insert(table.epoch(page)).second);
    table.LetGo(page, kNow);
  }
}

TEST(BlockTableTest, RestoredBlocksAreFoundAndTheRestIsFreeAfterwards) {
  BlockTable table(4, std::make_unique<LruPolicy>(4), BlockTable::Start::kRestoring);
  EXPECT_FALSE(table.TryTake(kNow).has_value()) << "nobody knows yet what lies there";
  EXPECT_FALSE(table.Reserve(1));
  // The child first: order of restoring means nothing.
  EXPECT_TRUE(table.Restore(3, Key(2), Key(1), {.position = 1}, kNow));
  EXPECT_TRUE(table.Restore(1, Key(1), std::nullopt, {}, kNow));
  EXPECT_FALSE(table.Restore(1, Key(3), std::nullopt, {}, kNow)) << "the page is taken";
  EXPECT_FALSE(table.Restore(0, Key(1), std::nullopt, {}, kNow)) << "the key is taken";
  EXPECT_EQ(table.Find(Key(2)), 3);
  EXPECT_EQ(table.traits(3).position, 1u);
  table.FinishRestore();
  EXPECT_EQ(table.free_pages(), 2);
  EXPECT_EQ(table.available(), 4);
  ASSERT_TRUE(table.TryTake(kNow).has_value());
  ASSERT_TRUE(table.TryTake(kNow).has_value());
  EXPECT_EQ(Squeeze(table), Key(2)) << "children first";
  EXPECT_EQ(Squeeze(table), Key(1));
  EXPECT_FALSE(table.TryTake(kNow).has_value());
}

TEST(BlockTableTest, LostBlocksLeaveTheirChildrenAlone) {
  BlockTable table = Table(3);
  int32_t parent = Cache(table, 1);
  Cache(table, 2, 1);
  table.Lose(parent);
  EXPECT_EQ(table.Find(Key(1)), -1);
  EXPECT_GE(table.Find(Key(2)), 0);
  EXPECT_EQ(table.available(), 3);
  Cache(table, 1);
  Cache(table, 3);
  EXPECT_EQ(Squeeze(table), Key(2)) << "its parent is back, and goes after it";
}

TEST(BlockTableTest, RemembersTheLastUse) {
  BlockTable table = Table(1);
  int32_t page = Cache(table, 1);
  EXPECT_EQ(table.last_use(page), kNow);
  ASSERT_TRUE(table.TryHold(page, kNow + absl::Seconds(5)));
  table.LetGo(page, kNow + absl::Seconds(6));
  EXPECT_EQ(table.last_use(page), kNow + absl::Seconds(5));
  ASSERT_TRUE(table.TryHold(page, kNow + absl::Seconds(7), HoldFor::kUpkeep));
  EXPECT_EQ(table.last_use(page), kNow + absl::Seconds(5)) << "upkeep is no use";
}

TEST(BlockTableTest, SecondBlockOfAKeyStaysPrivate) {
  BlockTable table = Table(2);
  Cache(table, 1);
  int32_t page = table.TryTake(kNow)->page;
  EXPECT_FALSE(table.Publish(page, Key(1), std::nullopt, {}, kNow));
  table.LetGo(page, kNow);
  EXPECT_EQ(table.free_pages(), 1);
  EXPECT_EQ(table.cached_pages(), 1);
}

TEST(BlockTableTest, ChildrenGoBeforeParents) {
  BlockTable table = Table(3);
  Cache(table, 1);
  Cache(table, 2, 1);
  Cache(table, 3, 2);
  EXPECT_EQ(Squeeze(table), Key(3));
  EXPECT_EQ(Squeeze(table), Key(2));
  EXPECT_EQ(Squeeze(table), Key(1));
}

TEST(BlockTableTest, ChildrenThatCameFirstGoFirstToo) {
  BlockTable table = Table(2);
  Cache(table, 2, 1);
  Cache(table, 1);
  EXPECT_EQ(Squeeze(table), Key(2));
}

TEST(BlockTableTest, LeastRecentlyUsedLeafGoes) {
  BlockTable table = Table(3);
  Cache(table, 1);
  int32_t old_leaf = Cache(table, 2, 1);
  Cache(table, 3, 1);
  ASSERT_TRUE(table.TryHold(old_leaf, kNow));
  table.LetGo(old_leaf, kNow);
  EXPECT_EQ(Squeeze(table), Key(3));
}

TEST(BlockTableTest, HeldBlocksStay) {
  BlockTable table = Table(2);
  int32_t held = Cache(table, 1);
  Cache(table, 2);
  ASSERT_TRUE(table.TryHold(held, kNow));
  EXPECT_EQ(Squeeze(table), Key(2));
  EXPECT_FALSE(table.TryTake(kNow).has_value());
}

TEST(BlockTableTest, ParentOfHeldChildrenGoesWhenNothingElseCan) {
  BlockTable table = Table(3);
  Cache(table, 1);
  int32_t child = Cache(table, 2, 1);
  Cache(table, 3);
  ASSERT_TRUE(table.TryHold(child, kNow));
  EXPECT_EQ(Squeeze(table), Key(3));
  EXPECT_EQ(Squeeze(table), Key(1));
  EXPECT_GE(table.Find(Key(2)), 0);
}

TEST(BlockTableTest, UpkeepIsNoUse) {
  BlockTable table(20, std::make_unique<S3FifoPolicy>(20));
  for (uint32_t key = 0; key < 20; ++key) Cache(table, key);
  for (int use = 0; use < 2; ++use) {
    ASSERT_TRUE(table.TryHold(table.Find(Key(0)), kNow, HoldFor::kUpkeep));
    table.LetGo(table.Find(Key(0)), kNow);
    ASSERT_TRUE(table.TryHold(table.Find(Key(1)), kNow, HoldFor::kUse));
    table.LetGo(table.Find(Key(1)), kNow);
  }
  EXPECT_EQ(Squeeze(table), Key(0)) << "the oldest that was not used twice";
  EXPECT_EQ(Squeeze(table), Key(2));
}

TEST(BlockTableTest, UpkeepMakesNothingYounger) {
  BlockTable table = Table(3);
  for (uint32_t key : {1, 2, 3}) Cache(table, key);
  ASSERT_TRUE(table.TryHold(table.Find(Key(1)), kNow, HoldFor::kUpkeep));
  table.LetGo(table.Find(Key(1)), kNow);
  EXPECT_EQ(Squeeze(table), Key(1));
  ASSERT_TRUE(table.TryHold(table.Find(Key(2)), kNow, HoldFor::kUpkeep));
  ASSERT_TRUE(table.TryHold(table.Find(Key(2)), kNow, HoldFor::kUse));
  table.LetGo(table.Find(Key(2)), kNow);
  table.LetGo(table.Find(Key(2)), kNow);
  EXPECT_EQ(Squeeze(table), Key(3)) << "a use among the holds counts";
}

TEST(BlockTableTest, ForecastsVictims) {
  BlockTable table = Table(3);
  Cache(table, 1);
  int32_t leaf = Cache(table, 2, 1);
  int32_t held = Cache(table, 3);
  ASSERT_TRUE(table.TryHold(held, kNow));
  EXPECT_EQ(table.NextVictims(3, kNow), std::vector<int32_t>{leaf});
  EXPECT_EQ(table.key(leaf), Key(2));
}

TEST(BlockTableTest, DropsWhatMayGo) {
  BlockTable table = Table(3);
  int32_t parent = Cache(table, 1);
  int32_t child = Cache(table, 2, 1);
  EXPECT_FALSE(table.Drop(parent)) << "its child could go first";
  ASSERT_TRUE(table.TryHold(child, kNow));
  EXPECT_FALSE(table.Drop(child));
  table.LetGo(child, kNow);
  EXPECT_TRUE(table.Drop(child));
  EXPECT_TRUE(table.Drop(parent));
  EXPECT_EQ(table.free_pages(), 3);
  EXPECT_FALSE(table.Drop(parent)) << "nothing is cached there any more";
}

TEST(BlockTableTest, PromisesAreKept) {
  BlockTable table = Table(3);
  int32_t cached = Cache(table, 1);
  EXPECT_FALSE(table.Reserve(4));
  ASSERT_TRUE(table.Reserve(3));
  EXPECT_FALSE(table.Reserve(1));
  EXPECT_FALSE(table.TryTake(kNow).has_value());
  EXPECT_FALSE(table.TryHold(cached, kNow)) << "the page is promised";
  table.HoldReserved(cached, kNow);
  EXPECT_TRUE(table.TryHold(cached, kNow)) << "held already: costs nothing";
  EXPECT_EQ(table.reserved(), 2);
  table.TakeReserved(kNow);
  table.TakeReserved(kNow);
  EXPECT_EQ(table.available(), 0);
}

// A naive model beside the table: every rule checked after every call, over a forest of keys.
class ModelCheck {
 public:
  static constexpr int kPages = 24;

  ModelCheck(uint64_t seed, std::unique_ptr<EvictionPolicy> policy)
      : random_(seed), table_(kPages, std::move(policy)) {}

  void Step() {
    switch (random_.UniformInt(uint64_t{8})) {
      case 0:
        return Reserve();
      case 1:
        return Unreserve();
      case 2:
        return TakeReserved();
      case 3:
        return TryTake();
      case 4:
        return Hold();
      case 5:
        return Publish();
      default:
        return LetGo();
    }
  }

  void Check() const {
    int held = 0, cached = 0;
    for (int32_t page = 0; page < kPages; ++page) {
      auto hold = holds_.find(page);
      int count = hold == holds_.end() ? 0 : hold->second;
      ASSERT_EQ(table_.held(page), count > 0) << page;
      held += count > 0;
      cached += table_.cached(page);
      uint64_t epoch = count > 0 ? epochs_.at(page) : table_.epoch(page);
      ASSERT_EQ(table_.epoch(page), epoch) << "reused while held";
    }
    ASSERT_EQ(table_.held_pages(), held);
    ASSERT_EQ(table_.cached_pages(), cached);
    ASSERT_EQ(table_.cached_pages(), static_cast<int>(keys_.size()));
    ASSERT_EQ(table_.available(), kPages - held);
    ASSERT_EQ(table_.reserved(), reserved_);
    ASSERT_LE(reserved_, table_.available());
    for (const auto& [key, page] : keys_) ASSERT_EQ(table_.Find(Key(key)), page);
  }

 private:
  static constexpr uint32_t kKeys = 60;

  // Keys form a heap-shaped forest: 0, 1 and 2 are roots.
  static std::optional<uint32_t> ParentOf(uint32_t key) {
    if (key < 3) return std::nullopt;
    return key / 3;
  }
  void Reserve() {
    int pages = static_cast<int>(random_.UniformInt(uint64_t{6}));
    bool fits = pages <= table_.available() - reserved_;
    ASSERT_EQ(table_.Reserve(pages), fits);
    if (fits) reserved_ += pages;
  }
  void Unreserve() {
    int pages = static_cast<int>(random_.UniformInt(static_cast<uint64_t>(reserved_) + 1));
    table_.Unreserve(pages);
    reserved_ -= pages;
  }
  void TakeReserved() {
    if (reserved_ == 0) return;
    bool had_free = table_.free_pages() > 0;
    TakenPage taken = table_.TakeReserved(kNow);
    --reserved_;
    Took(taken, had_free);
  }
  void TryTake() {
    bool had_free = table_.free_pages() > 0;
    bool possible = table_.available() > reserved_;
    std::optional<TakenPage> taken = table_.TryTake(kNow);
    ASSERT_EQ(taken.has_value(), possible);
    if (taken.has_value()) Took(*taken, had_free);
  }
  void Took(const TakenPage& taken, bool had_free) {
    ASSERT_EQ(taken.evicted.has_value(), !had_free) << "evicts only without free pages";
    ASSERT_FALSE(holds_.contains(taken.page)) << "a held page was given away";
    if (taken.evicted.has_value()) Evicted(taken);
    holds_[taken.page] = 1;
    epochs_[taken.page] = table_.epoch(taken.page);
    private_.push_back(taken.page);
  }
  void Evicted(const TakenPage& taken) {
    auto it = std::find_if(keys_.begin(), keys_.end(),
                           [&](const auto& entry) { return entry.second == taken.page; });
    ASSERT_NE(it, keys_.end());
    ASSERT_EQ(Key(it->first), *taken.evicted);
    bool has_children = false;
    for (const auto& [key, page] : keys_) {
      if (ParentOf(key) != it->first) continue;
      has_children = true;
      ASSERT_TRUE(holds_.contains(page)) << "a child could have gone before its parent";
    }
    // Only where no leaf was left.
    for (const auto& [key, page] : keys_) {
      if (!has_children || holds_.contains(page)) continue;
      ASSERT_TRUE(HasChild(key)) << "a leaf could have gone instead";
    }
    keys_.erase(it);
  }
  bool HasChild(uint32_t key) const {
    return std::any_of(keys_.begin(), keys_.end(),
                       [&](const auto& entry) { return ParentOf(entry.first) == key; });
  }
  void Hold() {
    if (keys_.empty()) return;
    auto it = std::next(keys_.begin(), static_cast<int64_t>(random_.UniformInt(keys_.size())));
    bool free_of_charge = holds_.contains(it->second);
    if (reserved_ > 0 && random_.Chance(0.5)) {
      table_.HoldReserved(it->second, kNow);
      if (!free_of_charge) --reserved_;
    } else {
      bool possible = free_of_charge || table_.available() > reserved_;
      ASSERT_EQ(table_.TryHold(it->second, kNow), possible);
      if (!possible) return;
    }
    ++holds_[it->second];
    epochs_[it->second] = table_.epoch(it->second);
  }
  void Publish() {
    if (private_.empty()) return;
    size_t which = random_.UniformInt(private_.size());
    uint32_t key = static_cast<uint32_t>(random_.UniformInt(uint64_t{kKeys}));
    std::optional<BlockKey> parent;
    if (ParentOf(key).has_value()) parent = Key(*ParentOf(key));
    bool fresh = !keys_.contains(key);
    ASSERT_EQ(table_.Publish(private_[which], Key(key), parent, {}, kNow), fresh);
    if (!fresh) return;
    keys_[key] = private_[which];
    private_.erase(private_.begin() + static_cast<int64_t>(which));
  }
  void LetGo() {
    if (holds_.empty()) return;
    auto it = std::next(holds_.begin(), static_cast<int64_t>(random_.UniformInt(holds_.size())));
    table_.LetGo(it->first, kNow);
    if (--it->second > 0) return;
    std::erase(private_, it->first);
    holds_.erase(it);
  }

  Random random_;
  BlockTable table_;
  int reserved_ = 0;
  std::map<int32_t, int> holds_;
  std::map<int32_t, uint64_t> epochs_;
  std::map<uint32_t, int32_t> keys_;  // cached
  std::vector<int32_t> private_;
};

// Whatever the policy: it decides what goes first, not what may go.
template <typename Policy>
class EveryPolicyTest : public testing::Test {};
using Policies = testing::Types<LruPolicy, S3FifoPolicy, LearnedPolicy>;
TYPED_TEST_SUITE(EveryPolicyTest, Policies);

TYPED_TEST(EveryPolicyTest, AgreesWithAModel) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ModelCheck check(seed, std::make_unique<TypeParam>(ModelCheck::kPages));
    for (int step = 0; step < 600; ++step) {
      check.Step();
      check.Check();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace tarn::kvstore
