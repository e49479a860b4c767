#include "kvstore/directory/block_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

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

InventoryChange Gone(uint32_t key, Tier tier = Tier::kHbm) {
  return {.added = false, .key = Key(key), .tier = tier};
}

std::vector<BlockKey> Keys(uint32_t count) {
  std::vector<BlockKey> keys;
  for (uint32_t i = 0; i < count; ++i) keys.push_back(Key(i));
  return keys;
}

void SweepAll(BlockIndex& index) {
  while (index.sweeping()) index.Sweep(10'000);
}

TEST(BlockIndexTest, MatchCountsLeadingKeys) {
  BlockIndex index;
  index.Join(Life("a", 1));
  index.Join(Life("b", 1));
  for (uint32_t key : {1, 2, 5}) index.Apply(NodeId("a"), Add(key));
  index.Apply(NodeId("a"), Add(3, Tier::kDram));
  index.Apply(NodeId("a"), Add(4, Tier::kSsd));
  index.Apply(NodeId("b"), Add(2));
  BlockKey keys[] = {Key(1), Key(2), Key(3), Key(4), Key(5), Key(6)};
  std::vector<NodeMatch> matches = index.Match(keys);
  ASSERT_EQ(matches.size(), 1u) << "b lacks the first key";
  EXPECT_EQ(matches[0].node, NodeId("a"));
  EXPECT_EQ(matches[0].blocks, 5);
  EXPECT_EQ(matches[0].memory_blocks, 3);
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
  const size_t b = sources[0].node == NodeId("b") ? 0 : 1;
  EXPECT_EQ(sources[b].node, NodeId("b"));
  EXPECT_EQ(sources[b].address.epoch, 9u);
  EXPECT_EQ(sources[1 - b].node, NodeId("c"));
  EXPECT_EQ(sources[2].node, NodeId("a")) << "DRAM after HBM";
  EXPECT_EQ(index.Sources(Key(1), NodeId("b")).size(), 2u);
  ASSERT_EQ(index.Sources(Key(1), NodeId("b"), 1).size(), 1u);
  EXPECT_EQ(index.Sources(Key(1), NodeId("b"), 1)[0].node, NodeId("c"));
  EXPECT_EQ(index.HoldersOf(Key(1), NodeId("b")), 2);
}

// Ties would else all go to the node with the lowest name.
TEST(BlockIndexTest, ReadersAndKeysSpreadOverEqualSources) {
  constexpr int kHolders = 4, kReaders = 20, kKeys = 100;
  BlockIndex index, same;
  for (int i = 0; i < kHolders; ++i) {
    const std::string name = "node-" + std::to_string(i);
    const std::string other = "node-" + std::to_string(kHolders - 1 - i);
    index.Join(Life(name, 1));
    same.Join(Life(other, 1));
    for (uint32_t key = 0; key < kKeys; ++key) {
      index.Apply(NodeId(name), Add(key));
      same.Apply(NodeId(other), Add(key));
    }
  }
  std::map<NodeId, int> first, first_of_one_key, first_of_one_reader;
  for (int i = 0; i < kReaders; ++i) {
    const NodeId reader("reader-" + std::to_string(i));
    for (uint32_t key = 0; key < kKeys; ++key) {
      const NodeId node = index.Sources(Key(key), reader)[0].node;
      ++first[node];
      if (key == 0) ++first_of_one_key[node];
      if (i == 0) ++first_of_one_reader[node];
      EXPECT_EQ(index.Sources(Key(key), reader, 1)[0].node, node);
      EXPECT_EQ(same.Sources(Key(key), reader)[0].node, node) << "whoever joined first";
    }
  }
  ASSERT_EQ(first.size(), size_t{kHolders});
  for (const auto& [node, times] : first) EXPECT_NEAR(times, kReaders * kKeys / kHolders, 100);
  EXPECT_GE(first_of_one_key.size(), 3u);
  EXPECT_EQ(first_of_one_reader.size(), size_t{kHolders});
}

TEST(BlockIndexTest, LivesDoNotMix) {
  BlockIndex index;
  index.Join(Life("a", 1));
  index.Apply(NodeId("a"), Add(1));
  index.Join(Life("a", 2));
  EXPECT_EQ(index.HoldersOf(Key(1)), 0);
  EXPECT_EQ(index.Stats().places, 0u);
  index.Apply(NodeId("a"), Add(2));
  index.Leave(NodeId("a"), Incarnation(1));
  EXPECT_EQ(index.BlocksOf(NodeId("a")), 1u) << "that life was over already";
  index.Leave(NodeId("a"), Incarnation(2));
  index.Apply(NodeId("a"), Add(3));
  EXPECT_TRUE(index.Match(Keys(4)).empty());
  SweepAll(index);
  EXPECT_EQ(index.block_count(), 0u);
}

TEST(BlockIndexTest, AddressesAreKeptWhole) {
  const BlockAddress addresses[] = {
      {0, 0, 0},
      {255, (uint64_t{1} << 44) - 4096, 0xFFFFFFFF},
      {256, 4096, 1},                      // region
      {1, uint64_t{1} << 44, 1},           // offset
      {1, 64, 1},                          // not of whole pages
      {1, 4096, (uint64_t{1} << 32) + 7},  // epoch: must not look like 7
      {1, 4096, 7},                        // and back
      {~0u, ~uint64_t{0}, ~uint64_t{0}},
  };
  BlockIndex index;
  index.Join(Life("a", 1));
  index.Join(Life("b", 1));
  size_t bytes = 0;
  for (const BlockAddress& address : addresses) {
    index.Apply(NodeId("a"), {true, Key(1), Tier::kDram, address});
    index.Apply(NodeId("b"), {true, Key(1), Tier::kDram, addresses[1]});
    ASSERT_EQ(index.Sources(Key(1)).size(), 2u);
    EXPECT_EQ(index.Sources(Key(1), NodeId("b"))[0].address, address) << address.epoch;
    EXPECT_EQ(index.Sources(Key(1), NodeId("a"))[0].address, addresses[1]);
    if (bytes == 0) bytes = index.Stats().bytes;
  }
  EXPECT_GT(index.Stats().bytes, bytes) << "the side table counts";
  index.Apply(NodeId("a"), Gone(1, Tier::kDram));
  EXPECT_LE(index.Stats().bytes, bytes);
}

// An index in which nodes come, go and start over beside a plain set of what is known.
class AgainstModel {
 public:
  explicit AgainstModel(uint64_t seed) : random_(seed) {}

  // Nodes hold what is likely to be a prefix, or anything.
  void Step(uint32_t key_count) {
    std::string name = names_[random_.UniformInt(names_.size())];
    auto key = static_cast<uint32_t>(random_.UniformInt(uint64_t{key_count}));
    Tier tier = static_cast<Tier>(1 + random_.UniformInt(uint64_t{3}));
    switch (random_.UniformInt(uint64_t{60})) {
      case 0:
        index_.Join(Life(name, ++life_));
        lives_[name] = life_;
        Forget(name);
        break;
      case 1:
        if (!lives_.contains(name)) break;
        index_.Leave(NodeId(name), Incarnation(lives_[name]));
        lives_.erase(name);
        Forget(name);
        break;
      case 2:
        index_.Clear(NodeId(name));
        Forget(name);
        break;
      case 3:
        index_.Sweep(random_.UniformInt(uint64_t{5000}));
        break;
      default:
        Change(name, key, tier);
    }
  }

  void Check(uint32_t key_count) {
    std::set<uint32_t> distinct;
    for (const auto& [place, address] : model_) distinct.insert(std::get<0>(place));
    ASSERT_GE(index_.block_count(), distinct.size());
    ASSERT_EQ(index_.Stats().places, model_.size());
    for (uint32_t key = 0; key < key_count; ++key) CheckSources(key);
    CheckMatch(key_count);
    CheckWalk();
    SweepAll(index_);
    ASSERT_EQ(index_.block_count(), distinct.size());
  }

 private:
  using PlaceOfBlock = std::tuple<uint32_t, Tier, std::string>;

  void Forget(const std::string& name) {
    std::erase_if(model_, [&](const auto& entry) { return std::get<2>(entry.first) == name; });
  }

  void Change(const std::string& name, uint32_t key, Tier tier) {
    if (random_.Chance(0.4)) {
      index_.Apply(NodeId(name), Gone(key, tier));
      model_.erase({key, tier, name});
      return;
    }
    uint64_t shift = random_.UniformInt(uint64_t{64});
    BlockAddress address{static_cast<uint32_t>(random_.Next() >> (32 + shift / 2)),
                         (random_.Next() >> shift) & ~uint64_t{random_.Chance(0.9) ? 4095u : 0u},
                         random_.Next() >> shift};
    index_.Apply(NodeId(name), {true, Key(key), tier, address});
    if (lives_.contains(name)) model_[{key, tier, name}] = address;
  }

  void CheckSources(uint32_t key) {
    std::vector<BlockSource> sources = index_.Sources(Key(key));
    ASSERT_TRUE(std::is_sorted(sources.begin(), sources.end(),
                               [](const auto& a, const auto& b) { return a.tier < b.tier; }));
    std::sort(sources.begin(), sources.end(), [](const auto& a, const auto& b) {
      return std::pair(a.tier, a.node) < std::pair(b.tier, b.node);
    });
    auto it = model_.lower_bound({key, Tier::kHbm, ""});
    std::set<std::string> holders;
    for (const BlockSource& source : sources) {
      ASSERT_TRUE(it != model_.end());
      ASSERT_EQ(it->first, PlaceOfBlock(key, source.tier, source.node.value()));
      ASSERT_EQ(it->second, source.address);
      ASSERT_EQ(source.incarnation, Incarnation(lives_[source.node.value()]));
      holders.insert(source.node.value());
      ++it;
    }
    ASSERT_TRUE(it == model_.end() || std::get<0>(it->first) != key);
    ASSERT_EQ(index_.HoldersOf(Key(key)), static_cast<int>(holders.size()));
  }

  // The whole prompt is short enough to be exact.
  void CheckMatch(uint32_t key_count) {
    std::vector<NodeMatch> matches = index_.Match(Keys(std::min(key_count, 32u)));
    auto lead = [&](const std::string& name, Tier slowest) {
      for (uint32_t key = 0;; ++key) {
        bool has = key < std::min(key_count, 32u) &&
                   std::any_of(model_.begin(), model_.end(), [&](const auto& entry) {
                     const auto& [k, tier, node] = entry.first;
                     return k == key && tier <= slowest && node == name;
                   });
        if (!has) return static_cast<int>(key);
      }
    };
    size_t at = 0;
    for (const std::string& name : names_) {
      int blocks = lead(name, Tier::kSsd);
      if (blocks == 0) continue;
      ASSERT_LT(at, matches.size());
      ASSERT_EQ(matches[at].node, NodeId(name));
      ASSERT_EQ(matches[at].blocks, blocks);
      ASSERT_EQ(matches[at].memory_blocks, lead(name, Tier::kDram));
      ASSERT_EQ(matches[at].hbm_blocks, lead(name, Tier::kHbm));
      ++at;
    }
    ASSERT_EQ(at, matches.size());
  }

  void CheckWalk() {
    std::map<PlaceOfBlock, BlockAddress> walked;
    uint64_t cursor = 0;
    do {
      cursor =
          index_.Walk(cursor, 1000, [&](const IndexedNode& node, const InventoryChange& change) {
            uint32_t number = 0;
            std::memcpy(&number, change.key.bytes.data(), sizeof(number));
            ASSERT_TRUE(
                walked.insert({{number, change.tier, node.node.value()}, change.address}).second);
          });
    } while (cursor != 0);
    ASSERT_EQ(walked, model_);
  }

  const std::vector<std::string> names_{"a", "b", "c", "d", "e"};
  Random random_;
  BlockIndex index_;
  std::map<PlaceOfBlock, BlockAddress> model_;
  std::map<std::string, uint64_t> lives_;
  uint64_t life_ = 0;
};

TEST(BlockIndexTest, AgreesWithANaiveModel) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    AgainstModel model(seed);
    const uint32_t keys = seed % 2 == 0 ? 8 : 40;
    for (int step = 0; step < 1200; ++step) {
      model.Step(keys);
      if (step % 60 != 0) continue;
      ASSERT_NO_FATAL_FAILURE(model.Check(keys));
    }
  }
}

// Holdings that are prefixes in each set of tiers, as parents are evicted last.
TEST(BlockIndexTest, LongMatchesAreExactForPrefixes) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    BlockIndex index;
    const auto size = static_cast<uint32_t>(random.UniformInt(1, 3000));
    std::vector<BlockKey> keys = Keys(size);
    std::map<NodeId, NodeMatch> expected;
    for (int i = 0; i < 20; ++i) {
      NodeMatch match{.node = NodeId("node-" + std::to_string(100 + i))};
      auto up_to = [&](int bound) { return static_cast<int>(random.UniformInt(0, bound)); };
      match.blocks = random.Chance(0.1) ? static_cast<int>(size) : up_to(static_cast<int>(size));
      match.memory_blocks = random.Chance(0.3) ? match.blocks : up_to(match.blocks);
      match.hbm_blocks = random.Chance(0.3) ? match.memory_blocks : up_to(match.memory_blocks);
      index.Join({match.node, Incarnation(1), "h:1"});
      std::vector<InventoryChange> changes;
      for (uint32_t k = 0; k < static_cast<uint32_t>(match.blocks); ++k) {
        int at = static_cast<int>(k);
        if (at < match.hbm_blocks) changes.push_back(Add(k, Tier::kHbm));
        if (at >= match.hbm_blocks && at < match.memory_blocks) {
          changes.push_back(Add(k, Tier::kDram));
        }
        if (at >= match.memory_blocks || random.Chance(0.2)) {
          changes.push_back(Add(k, Tier::kSsd));
        }
      }
      index.Apply(match.node, changes);
      if (match.blocks > 0) expected[match.node] = match;
    }
    std::vector<NodeMatch> matches = index.Match(keys);
    ASSERT_EQ(matches.size(), expected.size());
    for (const NodeMatch& match : matches) {
      const NodeMatch& want = expected[match.node];
      EXPECT_EQ(match.blocks, want.blocks);
      EXPECT_EQ(match.memory_blocks, want.memory_blocks);
      EXPECT_EQ(match.hbm_blocks, want.hbm_blocks);
    }
  }
}

TEST(BlockIndexTest, AHoleInALongPromptEndsTheRunThereOrAtALaterEnd) {
  BlockIndex index;
  index.Join(Life("a", 1));
  for (uint32_t key = 0; key < 1000; ++key) index.Apply(NodeId("a"), Add(key));
  std::vector<BlockKey> keys = Keys(2000);
  for (uint32_t hole = 1; hole < 1000; hole += 37) {
    index.Apply(NodeId("a"), Gone(hole));
    int blocks = index.Match(keys).at(0).blocks;
    if (hole < 32) {
      EXPECT_EQ(blocks, static_cast<int>(hole));
    } else {
      EXPECT_TRUE(blocks == static_cast<int>(hole) || blocks == 1000) << blocks;
    }
    index.Apply(NodeId("a"), Add(hole));
  }
}

TEST(BlockIndexTest, OneBlockInThousandsOfPlaces) {
  BlockIndex index;
  constexpr int kNodes = 4000;
  for (int i = 0; i < kNodes; ++i) {
    std::string name = "node-" + std::to_string(10'000 + i);
    index.Join(Life(name, 1));
    index.Apply(NodeId(name), Add(1, Tier::kHbm, static_cast<uint64_t>(i)));
    index.Apply(NodeId(name), Add(1, Tier::kDram, static_cast<uint64_t>(i)));
  }
  EXPECT_EQ(index.HoldersOf(Key(1)), kNodes);
  EXPECT_EQ(index.block_count(), 1u);
  std::vector<BlockSource> sources = index.Sources(Key(1), NodeId(), 3);
  ASSERT_EQ(sources.size(), 3u);
  for (const BlockSource& source : sources) EXPECT_EQ(source.tier, Tier::kHbm);
  for (int i = 0; i < kNodes - 1; ++i) {
    index.Leave(NodeId("node-" + std::to_string(10'000 + i)), Incarnation(1));
  }
  SweepAll(index);
  ASSERT_EQ(index.Sources(Key(1)).size(), 2u);
  EXPECT_EQ(index.Sources(Key(1))[1].address.epoch, kNodes - 1u);
}

// Growing moves everything once; what is there is found at any time, and the limit is kept.
TEST(BlockIndexTest, GrowsToItsLimitAndRefusesWhatIsMore) {
  BlockIndex index({.max_bytes = 16 * kMiB});
  index.Join(Life("a", 1));
  uint32_t added = 0;
  while (index.Stats().refused == 0) {
    index.Apply(NodeId("a"), Add(added, Tier::kHbm, added));
    ++added;
    ASSERT_LE(index.Stats().bytes, 16 * kMiB);
    if (added % 20'000 != 0) continue;
    for (uint32_t key = 0; key < added; ++key) ASSERT_EQ(index.HoldersOf(Key(key)), 1) << key;
  }
  EXPECT_GT(added - 1, 16 * kMiB / 40) << "40 bytes a block, on the way to the last one";
  EXPECT_EQ(index.block_count(), added - 1);
  index.Apply(NodeId("a"), Add(7, Tier::kDram));
  index.Apply(NodeId("a"), Add(7, Tier::kHbm, 99));
  EXPECT_EQ(index.Sources(Key(7)).at(0).address.epoch, 99u) << "what is there can change";
  uint64_t refused = index.Stats().refused;
  for (uint32_t key = 0; key < 1000; ++key) index.Apply(NodeId("a"), Gone(key));
  for (uint32_t key = 0; key < 1000; ++key) index.Apply(NodeId("a"), Add(key));
  EXPECT_EQ(index.Stats().refused, refused) << "what has gone makes room";
  EXPECT_LE(index.Stats().bytes, 16 * kMiB);
}

TEST(BlockIndexTest, WhatIsNotYetSweptMakesRoom) {
  BlockIndex index({.max_bytes = 4 * kMiB});
  index.Join(Life("a", 1));
  uint32_t added = 0;
  while (index.Stats().refused == 0) index.Apply(NodeId("a"), Add(added++));
  index.Clear(NodeId("a"));
  uint64_t refused = index.Stats().refused;
  for (uint32_t key = 0; key + 1 < added; ++key) index.Apply(NodeId("a"), Add(5'000'000 + key));
  // The first ones come before the sweep has got anywhere.
  EXPECT_LT(index.Stats().refused - refused, added / 100);
}

TEST(BlockIndexTest, AWalkSeesWhatStaysWhileTheTableGrows) {
  BlockIndex index;
  index.Join(Life("a", 1));
  constexpr uint32_t kStay = 30'000;
  for (uint32_t key = 0; key < kStay; ++key) index.Apply(NodeId("a"), Add(key));
  std::vector<int> seen(kStay);
  uint32_t more = kStay;
  uint64_t cursor = 0;
  do {
    cursor = index.Walk(cursor, 3000, [&](const IndexedNode&, const InventoryChange& change) {
      uint32_t number = 0;
      std::memcpy(&number, change.key.bytes.data(), sizeof(number));
      if (number < kStay) ++seen[number];
    });
    for (int i = 0; i < 5000; ++i) index.Apply(NodeId("a"), Add(more++));
  } while (cursor != 0);
  EXPECT_GT(more, 4 * kStay) << "it did grow";
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kStay);
}

// As a directory fills a subscriber's index.
TEST(BlockIndexTest, OneIndexFillsAnother) {
  BlockIndex from({.seed = 1}), to({.seed = 2});
  for (BlockIndex* index : {&from, &to}) index->Join(Life("a", 1));
  constexpr uint32_t kBlocks = 200'000;
  for (uint32_t key = 0; key < kBlocks; ++key) from.Apply(NodeId("a"), Add(key));
  uint64_t cursor = 0;
  do {
    cursor = from.Walk(cursor, 4096, [&](const IndexedNode& node, const InventoryChange& change) {
      to.Apply(node.node, change);
    });
  } while (cursor != 0);
  EXPECT_EQ(to.Stats().places, kBlocks);
  EXPECT_EQ(to.Stats().refused, 0u);
}

// Ten million insertions and as many removals, most of them of another block than before.
TEST(BlockIndexTest, MemoryIsFlatOverTenMillionInsertionsAndRemovals) {
  BlockIndex index;
  const NodeId nodes[] = {NodeId("a"), NodeId("b")};
  for (const NodeId& node : nodes) index.Join({node, Incarnation(1), "h:1"});
  constexpr uint32_t kLive = 100'000;
  constexpr uint32_t kTurn = 64;
  size_t settled = 0;
  std::vector<InventoryChange> changes;
  uint32_t next = 0;
  for (uint32_t done = 0; done < 10'000'000; done += 3 * kTurn) {
    changes.clear();
    for (uint32_t i = 0; i < kTurn; ++i, ++next) {
      // Two tiers here, and on every other node one.
      if (next >= kLive) {
        changes.push_back(Gone(next - kLive));
        changes.push_back(Gone(next - kLive, Tier::kDram));
      }
      changes.push_back(Add(next));
      changes.push_back(Add(next, Tier::kDram));
    }
    index.Apply(nodes[0], changes);
    for (InventoryChange& change : changes) change.address.epoch = next;
    std::erase_if(changes, [](const auto& change) { return change.tier == Tier::kDram; });
    index.Apply(nodes[1], changes);
    if (done >= 1'000'000 && settled == 0) settled = index.Stats().bytes;
  }
  EXPECT_EQ(index.block_count(), kLive);
  EXPECT_EQ(index.Stats().places, 3 * kLive);
  EXPECT_EQ(index.Stats().refused, 0u);
  EXPECT_LE(index.Stats().bytes, settled + kMiB);
  EXPECT_LT(index.Stats().bytes / index.Stats().places, 48u);
}

}  // namespace
}  // namespace tarn::kvstore
