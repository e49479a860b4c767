#include "kvstore/server/adopter.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/memory/block_header.h"
#include "common/runtime/random.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "kvstore/client/fake_peers.h"

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
  };

  std::unique_ptr<Node> Start(const std::string& name, int pages, Tier tier = Tier::kHbm) {
    auto node = std::make_unique<Node>(this);
    NodePoolOptions options{.layout = kLayout, .hbm_pages = pages, .arena_tier = tier};
    auto pool = NodePool::Create(options, &loop_, &node->transport, &node->peers);
    CHECK(pool.ok()) << pool.status();
    node->pool = std::move(*pool);
    cluster_[name] = {node->transport.Address(), node->pool->RegionDescriptors()};
    index_.Join({NodeId(name), Incarnation(1), name});
    node->pool->ListenToInventory([this, name](const InventoryChange& change) {
      index_.Apply(NodeId(name), change);
      if (change.added && adopter_ != nullptr) adopter_->Consider(change.key);
    });
    return node;
  }
  void StartStore(int pages, int max_pulls = 8) {
    store_ = Start("store", pages, Tier::kDram);
    AdopterOptions options{.self = NodeId("store"), .max_pulls = max_pulls};
    adopter_ = std::make_unique<Adopter>(
        options, &loop_, store_->pool.get(), &admission_,
        [this]() -> const BlockIndex& { return index_; },
        [this](const NodePoolStats&) { return stores_; });
  }
  void Lose(const std::string& name, std::unique_ptr<Node> node) {
    index_.Leave(NodeId(name), Incarnation(1));
    cluster_.erase(name);
    node.reset();
  }
  static void Publish(Node& node, int number) {
    auto pages = node.pool->Reserve(RequestId(1), 1, absl::InfiniteFuture());
    CHECK(pages.ok()) << pages.status();
    PageRef page = node.pool->Allocate(*pages);
    Random(number).Fill(page.bytes().subspan(kLayout.payload_offset(), kLayout.payload_bytes()));
    SealBlock(kLayout, node.pool->IdentityFor(page, Key(number), 16), page.bytes());
    node.pool->Publish(page, Key(number), Key(number + 1000), {});
  }
  bool Stored(int number) const {
    BlockKey key = Key(number);
    return store_->pool->MatchLocal({&key, 1}) == 1;
  }
  void ExpectNothingHeld() {
    loop_.RunFor(absl::Minutes(10));
    NodePoolStats stats = store_->pool->Stats();
    EXPECT_EQ(stats.hbm_held + stats.hbm_reserved, 0);
    EXPECT_EQ(stats.leaked, 0);
    EXPECT_EQ(stats.pulls_in_flight, 0);
  }

  SimEventLoop loop_;
  LoopbackFabric fabric_;
  FakeCluster cluster_;
  BlockIndex index_;
  const PlacedAdmission admission_{NodeId("store"), {}};
  std::vector<StoreView> stores_{{NodeId("store"), 1}};
  std::unique_ptr<Node> store_;
  std::unique_ptr<Adopter> adopter_;
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
  adopter_->Consider(Key(1));
  loop_.RunUntilIdle();
  EXPECT_FALSE(Stored(1));
  EXPECT_EQ(store_->pool->Stats().hits_remote, 0u);
}

TEST_F(AdopterTest, TwoStoresShareTheBlocks) {
  auto a = Start("a", 128);
  stores_.push_back({NodeId("other-store"), 1});
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

}  // namespace
}  // namespace tarn::kvstore
