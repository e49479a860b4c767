#include "kvstore/server/adopter.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/memory/block_header.h"
#include "common/runtime/random.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "kvstore/client/fake_peers.h"
#include "kvstore/server/departure.h"

namespace tarn::kvstore {
namespace {

const BlockLayout kLayout{.layers = 1,
                          .kv_heads = 1,
                          .head_dim = 16,
                          .block_tokens = 16,
                          .type = KvType::kBf16,
                          .alignment = 64};

BlockKey Key(int number) {
  TokenId token = number;
  return ChildKey(BlockKey{}, {&token, 1});
}

// Nodes in virtual time; an index that hears of every change at once, as from a directory.
class AdopterTest : public testing::Test {
 protected:
  struct Node {
    explicit Node(AdopterTest* test)
        : transport(test->fabric_, test->loop_), peers(&test->loop_, &transport, &test->cluster_) {}
    LoopbackTransport transport;
    FakePeers peers;
    std::unique_ptr<NodePool> pool;
    std::unique_ptr<PlacedAdmission> admission;
    std::unique_ptr<Adopter> adopter;  // of a store
  };
  using NodePtr = std::unique_ptr<Node>;

  NodePtr Start(const std::string& name, int pages, Tier tier = Tier::kHbm) {
    auto node = std::make_unique<Node>(this);
    NodePoolOptions options{.layout = kLayout, .hbm_pages = pages, .arena_tier = tier};
    auto pool = NodePool::Create(options, &loop_, &node->transport, &node->peers);
    CHECK(pool.ok()) << pool.status();
    node->pool = std::move(*pool);
    cluster_[name] = {node->transport.Address(), node->pool->RegionDescriptors()};
    index_.Join({NodeId(name), Incarnation(1), name});
    node->pool->ListenToInventory([this, name](const InventoryChange& change) {
      index_.Apply(NodeId(name), change);
      if (change.added) Tell(name, change);
    });
    return node;
  }
  NodePtr StartStore(const std::string& name, int pages, int max_pulls = 8) {
    NodePtr store = Start(name, pages, Tier::kDram);
    about_[name].store = true;
    store->admission = std::make_unique<PlacedAdmission>(NodeId(name), ReplicationOptions());
    AdopterOptions options{.self = NodeId(name), .max_pulls = max_pulls};
    store->adopter = std::make_unique<Adopter>(options, &loop_, store->pool.get(),
                                               store->admission.get(), MakeNeighbours());
    adopters_[name] = store->adopter.get();
    return store;
  }
  void StartStore(int pages, int max_pulls = 8) { store_ = StartStore("store", pages, max_pulls); }
  Neighbours MakeNeighbours() {
    return {.index = [this]() -> const BlockIndex& { return index_; },
            .stores =
                [this](const NodePoolStats&) {
                  std::vector<StoreView> stores;
                  for (const auto& [name, about] : about_) {
                    if (about.store && !about.leaving) stores.push_back({NodeId(name), 1});
                  }
                  return stores;
                },
            .about = [this](const NodeId& node) { return about_[node.value()]; },
            .room = [this] { return room_; }};
  }
  void Tell(const std::string& name, const InventoryChange& change) {
    for (const auto& [store, adopter] : adopters_) adopter->Consider(NodeId(name), change);
  }
  // As if the node had got the block `times` times.
  void TellOften(const std::string& name, int number, Tier tier, int times) {
    for (int i = 0; i < times; ++i) Tell(name, {.key = Key(number), .tier = tier});
  }
  void Lose(const std::string& name, NodePtr node) {
    index_.Leave(NodeId(name), Incarnation(1));
    cluster_.erase(name);
    adopters_.erase(name);
    about_.erase(name);
    node.reset();
  }
  static void Publish(Node& node, int number, const BlockTraits& traits = {}) {
    auto pages = node.pool->Reserve(RequestId(1), 1, absl::InfiniteFuture());
    CHECK(pages.ok()) << pages.status();
    PageRef page = node.pool->Allocate(*pages);
    Random(number).Fill(page.bytes().subspan(kLayout.payload_offset(), kLayout.payload_bytes()));
    SealBlock(kLayout, node.pool->IdentityFor(page, Key(number), 16), page.bytes());
    node.pool->Publish(page, Key(number), Key(number + 1000), traits);
  }
  static bool Stored(const Node& node, int number) {
    BlockKey key = Key(number);
    return node.pool->MatchLocal({&key, 1}) == 1;
  }
  bool Stored(int number) const { return Stored(*store_, number); }
  DepartureOutcome Leave(const std::string& name, Node& store, HandOverOptions options = {}) {
    about_[name].leaving = true;
    store.adopter->Stop();
    std::optional<DepartureOutcome> outcome;
    Departure departure({.self = NodeId(name), .hand_over = options, .part_pages = 3}, &loop_,
                        store.pool.get(), MakeNeighbours(),
                        [&](const DepartureOutcome& result) { outcome = result; });
    loop_.RunFor(absl::Minutes(1));
    CHECK(outcome.has_value());
    return *outcome;
  }
  void ExpectNothingHeld(const Node& store) {
    loop_.RunFor(absl::Minutes(10));
    NodePoolStats stats = store.pool->Stats();
    EXPECT_EQ(stats.hbm_held + stats.hbm_reserved, 0);
    EXPECT_EQ(stats.leaked, 0);
    EXPECT_EQ(stats.pulls_in_flight, 0);
  }
  void ExpectNothingHeld() { ExpectNothingHeld(*store_); }

  SimEventLoop loop_;
  LoopbackFabric fabric_;
  FakeCluster cluster_;
  BlockIndex index_;
  std::map<std::string, Neighbour> about_;
  size_t room_ = 1000;
  std::map<std::string, Adopter*> adopters_;
  NodePtr store_;
};

TEST_F(AdopterTest, TakesOverWhatOneNodeHolds) {
  auto a = Start("a", 8);
  StartStore(8);
  for (int i = 0; i < 5; ++i) Publish(*a, i);
  loop_.RunUntilIdle();
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(Stored(i)) << i;
    EXPECT_EQ(index_.Sources(Key(i), NodeId("a")).size(), 1u) << "announced";
  }
  ExpectNothingHeld();
}

TEST_F(AdopterTest, LeavesWhatTwoNodesHold) {
  auto a = Start("a", 8), b = Start("b", 8);
  Publish(*a, 1);
  Publish(*b, 1);
  StartStore(8);
  Tell("b", {.key = Key(1)});
  loop_.RunUntilIdle();
  EXPECT_FALSE(Stored(1));
  EXPECT_EQ(store_->pool->Stats().hits_remote, 0u);
}

TEST_F(AdopterTest, TwoStoresShareTheBlocks) {
  auto a = Start("a", 128);
  about_["other-store"].store = true;
  StartStore(128);
  for (int i = 0; i < 100; ++i) Publish(*a, i);
  loop_.RunUntilIdle();
  int stored = 0;
  for (int i = 0; i < 100; ++i) stored += Stored(i) ? 1 : 0;
  EXPECT_NEAR(stored, 50, 20);
  ExpectNothingHeld();
}

TEST_F(AdopterTest, DropsTheLeastRecentlyUsedWhenFull) {
  auto a = Start("a", 16);
  StartStore(4);
  for (int i = 0; i < 10; ++i) {
    Publish(*a, i);
    loop_.RunUntilIdle();
  }
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Stored(i), i >= 6) << i;
  EXPECT_EQ(store_->pool->Stats().evictions_hbm, 6u);
  ExpectNothingHeld();
}

TEST_F(AdopterTest, MorePullsThanPagesLoseNoPage) {
  auto a = Start("a", 16);
  StartStore(2, 8);
  for (int i = 0; i < 10; ++i) Publish(*a, i);
  loop_.RunUntilIdle();
  EXPECT_EQ(store_->pool->Stats().hbm_cached, 2);
  ExpectNothingHeld();
}

TEST_F(AdopterTest, ABurstIsTakenInPortions) {
  auto a = Start("a", 64);
  StartStore(64, 2);
  for (int i = 0; i < 40; ++i) Publish(*a, i);
  EXPECT_EQ(store_->pool->Stats().pulls_in_flight, 2);
  loop_.RunUntilIdle();
  EXPECT_EQ(store_->pool->Stats().hbm_cached, 40);
  ExpectNothingHeld();
}

TEST_F(AdopterTest, TheSourceIsLostMeanwhile) {
  auto a = Start("a", 8);
  StartStore(8, 1);
  for (int i = 0; i < 3; ++i) Publish(*a, i);
  loop_.RunOne();  // the first handshake
  Lose("a", std::move(a));
  loop_.RunUntilIdle();
  EXPECT_EQ(store_->pool->Stats().hbm_cached, 0);
  ExpectNothingHeld();
  auto b = Start("b", 8);
  Publish(*b, 1);
  loop_.RunUntilIdle();
  EXPECT_TRUE(Stored(1)) << "it goes on";
}

TEST_F(AdopterTest, TenantsTravelAlong) {
  auto a = Start("a", 8);
  StartStore(8);
  Publish(*a, 1, {.tenant = TenantId("alice"), .position = 3, .turn = 2});
  loop_.RunUntilIdle();
  ASSERT_TRUE(Stored(1));
  EXPECT_EQ(store_->pool->FindLocal(Key(1))->traits.tenant, TenantId("alice"));
  EXPECT_EQ(store_->pool->FindLocal(Key(1))->traits.position, 3u);
}

TEST_F(AdopterTest, ASecondStoreTakesWhatIsHot) {
  auto a = Start("a", 8);
  auto first = StartStore("first", 8);
  for (int i : {1, 2, 3}) Publish(*a, i);
  loop_.RunUntilIdle();
  StartStore(8);
  TellOften("a", 1, Tier::kHbm, 2);
  TellOften("a", 2, Tier::kHbm, 200);  // three a second, by a memory of a minute
  TellOften("a", 3, Tier::kDram, 200);
  TellOften("first", 3, Tier::kDram, 200);
  loop_.RunUntilIdle();
  for (int i : {1, 2, 3}) EXPECT_TRUE(Stored(*first, i)) << i;
  EXPECT_FALSE(Stored(1)) << "cold: two have it";
  EXPECT_TRUE(Stored(2));
  EXPECT_FALSE(Stored(3)) << "copies between tiers and stores are no uses";
  loop_.RunFor(absl::Minutes(10));
  store_->adopter->Consider(NodeId("a"), {.key = Key(1)});
  loop_.RunUntilIdle();
  EXPECT_FALSE(Stored(1));
  EXPECT_EQ(store_->adopter->Stats().taken, 1u);
  EXPECT_GT(store_->adopter->Stats().verdicts.at(AdmissionVerdict::kEnough), 0u);
}

TEST_F(AdopterTest, WhatOnlyALeavingStoreHasGoesToTheOthers) {
  auto a = Start("a", 32);
  auto old = StartStore("old", 32);
  for (int i = 0; i < 20; ++i) Publish(*a, i, {.tenant = TenantId("alice")});
  loop_.RunUntilIdle();
  Lose("a", std::move(a));
  StartStore(32, 2);
  for (int i = 0; i < 20; ++i) Tell("old", {.key = Key(i), .tier = Tier::kDram});
  loop_.RunUntilIdle();
  const int before = store_->pool->Stats().hbm_cached;
  ASSERT_LT(before, 20) << "where only one has a block, its place decides";
  const DepartureOutcome outcome = Leave("old", *old, {.window = 4});
  EXPECT_EQ(outcome.end, HandOver::End::kAllOffered);
  EXPECT_EQ(outcome.taken, static_cast<size_t>(20 - before));
  EXPECT_EQ(outcome.left, 0u);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Stored(i)) << i;
  EXPECT_EQ(store_->pool->FindLocal(Key(0))->traits.tenant, TenantId("alice"));
  EXPECT_EQ(old->pool->Stats().hbm_cached, 20) << "it served to the end";
  ExpectNothingHeld(*old);
  ExpectNothingHeld();
}

TEST_F(AdopterTest, TheMostRecentGoFirstWhereRoomIsShort) {
  auto old = StartStore("old", 32);
  for (int i = 0; i < 20; ++i) {
    Publish(*old, i);
    loop_.RunFor(absl::Seconds(1));
  }
  about_["old"].leaving = true;
  StartStore(32, 1);
  room_ = 5;
  const DepartureOutcome outcome = Leave("old", *old);
  EXPECT_EQ(outcome.taken, 5u);
  EXPECT_EQ(outcome.left, 15u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Stored(i), i >= 15) << i;
}

TEST_F(AdopterTest, ALastStoreLeavesAtOnce) {
  StartStore(8);
  Publish(*store_, 1);
  const DepartureOutcome outcome = Leave("store", *store_);
  EXPECT_TRUE(outcome.alone);
  EXPECT_EQ(outcome.left, 1u);
}

TEST_F(AdopterTest, LeavesWhenNobodyWantsTheRest) {
  auto old = StartStore("old", 8);
  for (int i = 0; i < 4; ++i) Publish(*old, i);
  about_["deaf"].store = true;
  const DepartureOutcome outcome = Leave("old", *old, {.window = 3});
  EXPECT_EQ(outcome.end, HandOver::End::kNotWanted);
  EXPECT_EQ(outcome.left, 4u);
}

TEST_F(AdopterTest, WhoLeavesIsServedFirst) {
  auto a = Start("a", 32);
  auto old = StartStore("old", 8);
  Publish(*old, 100);
  adopters_.erase("old");
  StartStore(32, 1);
  for (int i = 0; i < 10; ++i) Publish(*a, i);
  about_["old"].leaving = true;
  old->pool->AnnounceAgain(Key(100));
  while (!Stored(100)) loop_.RunOne();
  EXPECT_FALSE(Stored(9)) << "asked for before";
  loop_.RunUntilIdle();
  EXPECT_TRUE(Stored(9));
}

}  // namespace
}  // namespace tarn::kvstore
