#include "kvstore/core/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

std::vector<BlockKey> Keys(int count) {
  Random random(1);
  std::vector<BlockKey> keys(count);
  for (BlockKey& key : keys) random.Fill(std::as_writable_bytes(std::span(key.bytes)));
  return keys;
}

std::vector<StoreView> Stores(const std::vector<double>& weights) {
  std::vector<StoreView> stores;
  for (size_t i = 0; i < weights.size(); ++i) {
    stores.push_back({NodeId("store-" + std::to_string(i)), weights[i]});
  }
  return stores;
}

NodeId First(const BlockKey& key, const std::vector<StoreView>& stores) {
  return stores[ChooseStores(key, stores, 1).at(0)].node;
}

TEST(PlacementTest, SharesAreInProportionToWeights) {
  const std::vector<StoreView> stores = Stores({1, 2, 5, 0});
  std::map<NodeId, int> blocks;
  for (const BlockKey& key : Keys(8000)) ++blocks[First(key, stores)];
  EXPECT_NEAR(blocks[NodeId("store-0")], 1000, 120);
  EXPECT_NEAR(blocks[NodeId("store-1")], 2000, 160);
  EXPECT_NEAR(blocks[NodeId("store-2")], 5000, 180);
  EXPECT_EQ(blocks[NodeId("store-3")], 0);
}

TEST(PlacementTest, TheOrderOfStoresDoesNotMatter) {
  const std::vector<StoreView> stores = Stores({1, 2, 3});
  std::vector<StoreView> turned(stores.rbegin(), stores.rend());
  for (const BlockKey& key : Keys(100)) EXPECT_EQ(First(key, stores), First(key, turned));
}

TEST(PlacementTest, AStoreThatLeavesMovesOnlyWhatItHad) {
  const std::vector<StoreView> stores = Stores({1, 1, 1, 1});
  const std::vector<StoreView> fewer(stores.begin(), stores.end() - 1);
  for (const BlockKey& key : Keys(1000)) {
    const NodeId before = First(key, stores);
    if (before == stores.back().node) continue;
    EXPECT_EQ(First(key, fewer), before);
  }
}

TEST(PlacementTest, CopiesLieOnDifferentStores) {
  const std::vector<StoreView> stores = Stores({1, 1, 1, 0});
  for (const BlockKey& key : Keys(100)) {
    const std::vector<size_t> two = ChooseStores(key, stores, 2);
    EXPECT_EQ(two.size(), 2u);
    EXPECT_NE(two[0], two[1]);
    EXPECT_EQ(two[0], ChooseStores(key, stores, 1).at(0)) << "more copies keep the first";
  }
  EXPECT_EQ(ChooseStores(Keys(1)[0], stores, 9).size(), 3u);
  EXPECT_TRUE(ChooseStores(Keys(1)[0], {}, 1).empty());
}

TEST(PlacementTest, EveryProcessChoosesTheSame) {
  // Written down once: a change would scatter what running clusters hold.
  std::string choices;
  for (const BlockKey& key : Keys(12)) {
    choices += std::to_string(ChooseStores(key, Stores({1, 1, 1}), 1).at(0));
  }
  EXPECT_EQ(choices, "220001021021");
}

TEST(PlacementTest, FreeRoomWeighsMore) {
  EXPECT_EQ(PlacementWeight(0, 0), 0);
  EXPECT_GT(PlacementWeight(1000, 0), 0);
  EXPECT_GT(PlacementWeight(1000, 1000), PlacementWeight(1000, 100));
  EXPECT_EQ(PlacementWeight(1000, 1000), PlacementWeight(1000, 990)) << "a small step is none";
}

TEST(PlacementTest, HotBlocksHaveMoreCopies) {
  const ReplicationOptions options{.uses_a_second_per_copy = 10, .max_copies = 3};
  EXPECT_EQ(CopiesFor(0, options), 1);
  EXPECT_EQ(CopiesFor(9, options), 1);
  EXPECT_EQ(CopiesFor(10, options), 2);
  EXPECT_EQ(CopiesFor(1e9, options), 3);
}

}  // namespace
}  // namespace tarn::kvstore
