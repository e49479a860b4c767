#include "kvstore/core/learned.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/runtime/random.h"
#include "kvstore/core/block_table.h"
#include "kvstore/core/lru.h"

namespace tarn::kvstore {
namespace {

// Keys look random in every byte.
BlockKey Key(uint64_t number) {
  BlockKey key;
  for (size_t half = 0; half < 2; ++half) {
    uint64_t word = (2 * number + half + 1) * 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93;
    word ^= word >> 32;
    std::memcpy(key.bytes.data() + 8 * half, &word, sizeof(word));
  }
  return key;
}

// Runs requests through a table, as a node does.
class Cache {
 public:
  Cache(int pages, std::unique_ptr<EvictionPolicy> policy) : table_(pages, std::move(policy)) {}

  void Wait(absl::Duration time) { now_ += time; }
  // Which blocks of the chain hit, from the front.
  size_t Ask(const std::vector<uint64_t>& chain, bool traits = true) {
    std::vector<int32_t> held;
    size_t hits = 0;
    for (; hits < chain.size(); ++hits) {
      const int32_t page = table_.Find(Key(chain[hits]));
      if (page < 0) break;
      EXPECT_TRUE(table_.TryHold(page, now_));
      held.push_back(page);
    }
    for (size_t i = hits; i < chain.size(); ++i) {
      const int32_t page = table_.TryTake(now_)->page;
      std::optional<BlockKey> parent;
      if (i > 0) parent = Key(chain[i - 1]);
      const BlockTraits known{.new_blocks =
                                  traits ? static_cast<uint32_t>(chain.size() - hits) : 0};
      table_.Publish(page, Key(chain[i]), parent, known, now_);
      held.push_back(page);
    }
    for (int32_t page : held) table_.LetGo(page, now_);
    return hits;
  }
  bool Has(uint64_t block) const { return table_.Find(Key(block)) >= 0; }
  int32_t PageOf(uint64_t block) const { return table_.Find(Key(block)); }
  absl::Time now() const { return now_; }
  BlockTable& table() { return table_; }

 private:
  BlockTable table_;
  absl::Time now_ = absl::UnixEpoch();
};

std::vector<uint64_t> Range(uint64_t first, uint64_t count) {
  std::vector<uint64_t> chain(count);
  for (uint64_t i = 0; i < count; ++i) chain[i] = first + i;
  return chain;
}

TEST(LearnedPolicyTest, KnowingNothingTheOldestChainGoesFromItsTail) {
  Cache cache(6, std::make_unique<LearnedPolicy>(6));
  cache.Ask(Range(0, 3));
  cache.Wait(absl::Seconds(10));
  cache.Ask(Range(10, 3));
  cache.Wait(absl::Seconds(10));
  cache.Ask({20});
  EXPECT_FALSE(cache.Has(2));
  cache.Ask({21});
  EXPECT_FALSE(cache.Has(1));
  EXPECT_TRUE(cache.Has(0));
  EXPECT_TRUE(cache.Has(12));
}

// A stream of prompts that never come back, and one whose every prompt is asked again a minute
// later. LRU keeps neither long enough. Ours learns the difference by how much is new.
template <typename Policy>
double ShareOfRepeatsHit(bool traits) {
  Cache cache(1000, std::make_unique<Policy>(1000));
  size_t hits = 0, repeats = 0;
  for (uint64_t second = 0; second < 500; ++second) {
    cache.Wait(absl::Milliseconds(500));
    cache.Ask(Range(1'000'000 + 100 * second, 40), traits);  // once
    cache.Wait(absl::Milliseconds(500));
    cache.Ask(Range(100 * second, 2), traits);
    if (second < 60) continue;
    const size_t hit = cache.Ask(Range(100 * (second - 60), 2), traits);
    if (second < 300) continue;
    hits += hit;
    repeats += 2;
  }
  return static_cast<double>(hits) / static_cast<double>(repeats);
}

TEST(LearnedPolicyTest, KeepsWhatComesBackAmongWhatDoesNot) {
  EXPECT_EQ(ShareOfRepeatsHit<LruPolicy>(true), 0);
  EXPECT_GT(ShareOfRepeatsHit<LearnedPolicy>(true), 0.9);
}

// Documents that are asked for again and again beside a stream that is not, and no traits at all.
template <typename Policy>
double ShareOfDocumentsHit() {
  Cache cache(500, std::make_unique<Policy>(500));
  Random random(1);
  size_t hits = 0, asked = 0;
  for (uint64_t step = 0; step < 1600; ++step) {
    cache.Wait(absl::Milliseconds(250));
    cache.Ask(Range(1'000'000 + 100 * step, 10), false);
    const size_t hit = cache.Ask(Range(100 * random.UniformInt(uint64_t{60}), 8), false);
    if (step < 800) continue;
    hits += hit;
    asked += 8;
  }
  return static_cast<double>(hits) / static_cast<double>(asked);
}

TEST(LearnedPolicyTest, LearnsWithoutTraits) {
  EXPECT_LT(ShareOfDocumentsHit<LruPolicy>(), 0.5);
  EXPECT_GT(ShareOfDocumentsHit<LearnedPolicy>(), 0.9);
}

TEST(LearnedPolicyTest, EqualCallsGiveEqualVictims) {
  auto run = [] {
    Cache cache(200, std::make_unique<LearnedPolicy>(200));
    Random random(5);
    std::vector<size_t> hits;
    for (int i = 0; i < 1000; ++i) {
      cache.Wait(absl::Milliseconds(random.UniformInt(int64_t{1}, int64_t{3000})));
      hits.push_back(cache.Ask(
          Range(50 * random.UniformInt(uint64_t{40}), 1 + random.UniformInt(uint64_t{30}))));
    }
    return hits;
  };
  EXPECT_EQ(run(), run());
}

TEST(LearnedPolicyTest, ForecastsItsVictims) {
  Cache cache(50, std::make_unique<LearnedPolicy>(50));
  for (uint64_t i = 0; i < 50; ++i) {
    cache.Ask({i});
    cache.Wait(absl::Seconds(3));
  }
  const std::vector<int32_t> forecast = cache.table().NextVictims(20, cache.now());
  ASSERT_EQ(forecast.size(), 20u);
  for (int32_t page : forecast) EXPECT_EQ(cache.table().TryTake(cache.now())->page, page);
}

TEST(LearnedPolicyTest, WorthFallsWithAgeWhileNothingIsKnown) {
  auto owned = std::make_unique<LearnedPolicy>(4);
  const LearnedPolicy* policy = owned.get();
  Cache cache(4, std::move(owned));
  cache.Ask({1});
  const double young = *policy->Worth(cache.PageOf(1), cache.now());
  cache.Wait(absl::Minutes(1));
  const double old = *policy->Worth(cache.PageOf(1), cache.now());
  EXPECT_GT(old, 0);
  EXPECT_GT(young, 10 * old);
}

TEST(LearnedPolicyTest, ATimeThatGoesBackIsTheLatestAgain) {
  LearnedPolicy policy(2);
  const absl::Time now = absl::UnixEpoch();
  policy.Insert(0, Key(0), -1, {}, now);
  policy.Rest(0, now);
  policy.Insert(1, Key(1), -1, {}, now - absl::Hours(1));
  policy.Rest(1, now - absl::Hours(1));
  policy.Allow(0, Evictable::kFreely);
  policy.Allow(1, Evictable::kFreely);
  EXPECT_EQ(policy.Victim(now), 0);
}

}  // namespace
}  // namespace tarn::kvstore
