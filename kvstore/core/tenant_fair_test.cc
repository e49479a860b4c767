#include "kvstore/core/tenant_fair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/runtime/random.h"
#include "kvstore/core/block_table.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

BlockKey Key(uint32_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  return key;
}

std::unique_ptr<TenantFairPolicy> Fair(TenantFairPolicy::Options options) {
  return std::make_unique<TenantFairPolicy>(std::move(options),
                                            [] { return std::make_unique<LruPolicy>(0); });
}

// A table of ten pages whose blocks nobody holds. Keys say whose they are.
class TenantFairTest : public testing::Test {
 protected:
  void Make(TenantFairPolicy::Options options, int pages = 10) {
    auto policy = Fair(std::move(options));
    policy_ = policy.get();
    table_ = std::make_unique<BlockTable>(pages, std::move(policy));
  }
  int32_t Cache(const std::string& tenant, std::optional<BlockKey> parent = std::nullopt) {
    const int32_t page = table_->TryTake(kNow)->page;
    const BlockTraits traits{.tenant = TenantId(tenant)};
    EXPECT_TRUE(table_->Publish(page, Key(next_), parent, traits, kNow));
    table_->LetGo(page, kNow);
    ++next_;
    return page;
  }
  void Fill(const std::string& tenant, int blocks) {
    for (int i = 0; i < blocks; ++i) Cache(tenant);
  }
  int PagesOf(const std::string& tenant) const { return policy_->PagesOf(TenantId(tenant)); }

  TenantFairPolicy* policy_ = nullptr;
  std::unique_ptr<BlockTable> table_;
  uint32_t next_ = 0;
};

TEST_F(TenantFairTest, AFloodLeavesTheGuaranteedShare) {
  Make({.shares = {{TenantId("a"), {.guaranteed = 4}}, {TenantId("b"), {.guaranteed = 4}}}});
  Fill("a", 10);
  Fill("b", 100);
  // Two of ten are nobody's, and shared but for the page that is just on its way.
  EXPECT_NEAR(PagesOf("a"), 5, 1);
  EXPECT_NEAR(PagesOf("b"), 5, 1);
  Fill("stranger", 100);
  EXPECT_EQ(PagesOf("a"), 4);
  EXPECT_EQ(PagesOf("b"), 4);
  EXPECT_EQ(PagesOf("stranger"), 2);
}

TEST_F(TenantFairTest, WeightsShareWhatNobodyIsGuaranteed) {
  Make({.shares = {{TenantId("a"), {.guaranteed = 1, .weight = 3}},
                   {TenantId("b"), {.guaranteed = 1, .weight = 1}}}});
  for (int round = 0; round < 50; ++round) {
    Fill("a", 1);
    Fill("b", 1);
  }
  EXPECT_NEAR(PagesOf("a"), 7, 1);
  EXPECT_NEAR(PagesOf("b"), 3, 1);
}

TEST_F(TenantFairTest, WhoIsGuaranteedGivesWhenNobodyElseCan) {
  Make({.shares = {{TenantId("a"), {.guaranteed = 10}}}});
  Fill("a", 10);
  Fill("b", 1);
  EXPECT_EQ(PagesOf("a"), 9);
  Fill("b", 1);
  EXPECT_EQ(PagesOf("a"), 9) << "now b has one above its guarantee of none";
}

TEST_F(TenantFairTest, AboveItsLimitATenantGoesFirst) {
  Make({.shares = {{TenantId("a"), {.limit = 2}}}});
  Fill("b", 6);
  Fill("a", 4);
  Fill("b", 2);
  EXPECT_EQ(PagesOf("a"), 2) << "though b has more above its guarantee";
  EXPECT_EQ(PagesOf("b"), 8);
}

TEST_F(TenantFairTest, WhatIsAboveALimitCanBeDroppedAtOnce) {
  Make({.shares = {{TenantId("a"), {.limit = 2}}}});
  Fill("a", 5);
  while (std::optional<int32_t> page = policy_->AboveLimit(kNow)) ASSERT_TRUE(table_->Drop(*page));
  EXPECT_EQ(PagesOf("a"), 2);
  EXPECT_EQ(table_->free_pages(), 8);
  EXPECT_LT(table_->Find(Key(0)), 0);
  EXPECT_GE(table_->Find(Key(4)), 0) << "the oldest went";
}

TEST_F(TenantFairTest, GuaranteesCountMoreThanReluctance) {
  Make({.shares = {{TenantId("a"), {.guaranteed = 1}}}}, 3);
  Cache("flood");
  const int32_t child = Cache("flood", Key(0));
  ASSERT_TRUE(table_->TryHold(child, kNow));
  Cache("a");
  EXPECT_EQ(table_->TryTake(kNow)->evicted, Key(0)) << "the parent of a held block";
  EXPECT_EQ(PagesOf("a"), 1);
}

TEST_F(TenantFairTest, ForecastIsWhatHappens) {
  Make({.shares = {{TenantId("a"), {.guaranteed = 2}}, {TenantId("b"), {.guaranteed = 1}}}});
  Fill("a", 5);
  Fill("b", 3);
  Fill("c", 2);
  std::vector<BlockKey> forecast;
  for (int32_t page : policy_->NextVictims(20, kNow)) forecast.push_back(table_->key(page));
  ASSERT_EQ(forecast.size(), 10u);
  for (const BlockKey& key : forecast) EXPECT_EQ(table_->TryTake(kNow)->evicted, key);
}

TEST_F(TenantFairTest, TooManyTenantsShareOnePlace) {
  Make({.max_tenants = 2});
  for (int i = 0; i < 1000; ++i) Cache("tenant " + std::to_string(i));
  EXPECT_EQ(table_->cached_pages(), 10);
  Fill("again", 10);
  EXPECT_EQ(table_->cached_pages(), 10);
}

// Tenants come and go at random; whatever they do, who has its guarantee or less loses nothing
// while another that is above has anything to give.
template <typename Inner>
class TenantPropertyTest : public testing::Test {};
using Inners = testing::Types<LruPolicy, LearnedPolicy>;
TYPED_TEST_SUITE(TenantPropertyTest, Inners);

TYPED_TEST(TenantPropertyTest, NobodyFallsBelowItsGuarantee) {
  constexpr int kPages = 64, kTenants = 5;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Random random(seed);
    TenantFairPolicy::Options options;
    std::vector<int> guaranteed;
    for (int i = 0; i < kTenants; ++i) {
      guaranteed.push_back(static_cast<int>(random.UniformInt(uint64_t{12})));
      options.shares[TenantId(std::to_string(i))] = {.guaranteed = guaranteed.back(),
                                                     .weight = 1 + random.UniformDouble()};
    }
    auto owned = std::make_unique<TenantFairPolicy>(
        options, [] { return std::make_unique<TypeParam>(kPages / kTenants); });
    const TenantFairPolicy* policy = owned.get();
    BlockTable table(kPages, std::move(owned));
    std::vector<int> owner_of_key;
    std::map<int, BlockKey> last;  // of each tenant's chain
    std::multiset<int32_t> holds;
    absl::Time now = kNow;
    for (int step = 0; step < 1500; ++step) {
      now += absl::Milliseconds(random.UniformInt(int64_t{0}, int64_t{500}));
      std::vector<int> before;
      for (int i = 0; i < kTenants; ++i)
        before.push_back(policy->PagesOf(TenantId(std::to_string(i))));
      // Only leaves that nobody holds are sure to be able to go.
      std::vector<bool> can_give(kTenants);
      for (int32_t page : table.NextVictims(kPages, now)) {
        uint32_t number;
        std::memcpy(&number, table.key(page).bytes.data(), sizeof(number));
        can_give[owner_of_key[number]] = true;
      }
      std::optional<TakenPage> taken = table.TryTake(now);
      if (!taken.has_value()) {
        table.LetGo(*holds.begin(), now);
        holds.erase(holds.begin());
        continue;
      }
      if (taken->evicted.has_value()) {
        uint32_t number;
        std::memcpy(&number, taken->evicted->bytes.data(), sizeof(number));
        const int loser = owner_of_key[number];
        if (before[loser] <= guaranteed[loser]) {
          for (int i = 0; i < kTenants; ++i) {
            ASSERT_FALSE(before[i] > guaranteed[i] && can_give[i])
                << "seed " << seed << " step " << step << ": " << loser << " lost, " << i
                << " was above";
          }
        }
      }
      const int tenant = static_cast<int>(random.UniformInt(uint64_t{kTenants}));
      const auto number = static_cast<uint32_t>(owner_of_key.size());
      owner_of_key.push_back(tenant);
      std::optional<BlockKey> parent;
      if (last.contains(tenant) && random.Chance(0.7)) parent = last[tenant];
      last[tenant] = Key(number);
      const BlockTraits traits{.tenant = TenantId(std::to_string(tenant))};
      ASSERT_TRUE(table.Publish(taken->page, Key(number), parent, traits, now));
      if (random.Chance(0.1)) {
        holds.insert(taken->page);
      } else {
        table.LetGo(taken->page, now);
      }
    }
  }
}

}  // namespace
}  // namespace tarn::kvstore
