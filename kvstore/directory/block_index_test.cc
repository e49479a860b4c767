#include "kvstore/directory/block_index.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

BlockKey Key(uint32_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  return key;
}

IndexedNode Life(const std::string& name, uint64_t incarnation) {
  return {NodeId(name), Incarnation(incarnation), name + ":1"};
}

InventoryChange Add(uint32_t key, Tier tier = Tier::kHbm, uint64_t epoch = 1) {
  return {true, Key(key), tier, {0, 0, epoch}};
}

TEST(BlockIndexTest, MatchCountsLeadingKeys) {
  BlockIndex index;
  index.Join(Life("a", 1));
  index.Join(Life("b", 1));
  for (uint32_t key : {1, 2, 4}) index.Apply(NodeId("a"), Add(key));
  index.Apply(NodeId("a"), Add(3, Tier::kDram));
  index.Apply(NodeId("b"), Add(2));
  BlockKey keys[] = {Key(1), Key(2), Key(3), Key(4), Key(5)};
  std::vector<NodeMatch> matches = index.Match(keys);
  ASSERT_EQ(matches.size(), 1u) << "b lacks the first key";
  EXPECT_EQ(matches[0].node, NodeId("a"));
  EXPECT_EQ(matches[0].blocks, 4);
  EXPECT_EQ(matches[0].hbm_blocks, 2);
}

TEST(BlockIndexTest, SourcesAreOrderedAndCurrent) {
  BlockIndex index;
  for (const char* name : {"c", "a", "b"}) index.Join(Life(name, 1));
  index.Apply(NodeId("a"), Add(1, Tier::kDram));
  index.Apply(NodeId("c"), Add(1));
  index.Apply(NodeId("b"), Add(1));
  index.Apply(NodeId("b"), Add(1, Tier::kHbm, 9));
  std::vector<BlockSource> sources = index.Sources(Key(1), NodeId("none"));
  ASSERT_EQ(sources.size(), 3u);
  EXPECT_EQ(sources[0].node, NodeId("b"));
  EXPECT_EQ(sources[0].address.epoch, 9u);
  EXPECT_EQ(sources[1].node, NodeId("c"));
  EXPECT_EQ(sources[2].node, NodeId("a"));
  EXPECT_EQ(index.Sources(Key(1), NodeId("b")).size(), 2u);
  EXPECT_EQ(index.HoldersOf(Key(1), NodeId("b")), 2);
}

TEST(BlockIndexTest, LivesDoNotMix) {
  BlockIndex index;
  index.Join(Life("a", 1));
  index.Apply(NodeId("a"), Add(1));
  index.Join(Life("a", 2));
  EXPECT_EQ(index.block_count(), 0u);
  index.Apply(NodeId("a"), Add(2));
  index.Leave(NodeId("a"), Incarnation(1));
  EXPECT_EQ(index.BlocksOf(NodeId("a")), 1u) << "that life was over already";
  index.Leave(NodeId("a"), Incarnation(2));
  index.Apply(NodeId("a"), Add(3));
  EXPECT_EQ(index.block_count(), 0u);
}

TEST(BlockIndexTest, AgreesWithANaiveModel) {
  using Entry = std::tuple<std::string, uint32_t, Tier>;
  const char* names[] = {"a", "b", "c"};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    BlockIndex index;
    std::set<Entry> model;
    std::map<std::string, uint64_t> lives;
    auto forget = [&](const std::string& name) {
      std::erase_if(model, [&](const Entry& entry) { return std::get<0>(entry) == name; });
    };
    for (int step = 0; step < 500; ++step) {
      std::string name = names[random.UniformInt(uint64_t{3})];
      auto key = static_cast<uint32_t>(random.UniformInt(uint64_t{8}));
      Tier tier = random.Chance(0.5) ? Tier::kHbm : Tier::kDram;
      switch (random.UniformInt(uint64_t{20})) {
        case 0:
          index.Join(Life(name, step));
          lives[name] = step;
          forget(name);
          break;
        case 1:
          if (!lives.contains(name)) break;
          index.Leave(NodeId(name), Incarnation(lives[name]));
          lives.erase(name);
          forget(name);
          break;
        case 2:
          index.Clear(NodeId(name));
          forget(name);
          break;
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
          index.Apply(NodeId(name), {false, Key(key), tier, {}});
          model.erase({name, key, tier});
          break;
        default:
          index.Apply(NodeId(name), Add(key, tier));
          if (lives.contains(name)) model.insert({name, key, tier});
      }
      std::set<uint32_t> distinct;
      for (const Entry& entry : model) distinct.insert(std::get<1>(entry));
      ASSERT_EQ(index.block_count(), distinct.size());
      std::vector<BlockKey> keys;
      for (uint32_t i = 0; i < 8; ++i) keys.push_back(Key(i));
      std::vector<NodeMatch> matches = index.Match(keys);
      size_t at = 0;
      for (const char* node : names) {
        int blocks = 0, hbm = 0;
        auto has = [&](int k, Tier t) {
          return model.contains({node, static_cast<uint32_t>(k), t});
        };
        while (blocks < 8 && (has(blocks, Tier::kHbm) || has(blocks, Tier::kDram))) ++blocks;
        while (hbm < 8 && has(hbm, Tier::kHbm)) ++hbm;
        if (blocks == 0) continue;
        ASSERT_LT(at, matches.size());
        EXPECT_EQ(matches[at].node, NodeId(node));
        EXPECT_EQ(matches[at].blocks, blocks);
        EXPECT_EQ(matches[at].hbm_blocks, hbm);
        ++at;
      }
      ASSERT_EQ(at, matches.size());
    }
  }
}

}  // namespace
}  // namespace tarn::kvstore
