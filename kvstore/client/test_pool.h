#pragma once

// Nodes with pools over one simulated loop, for tests of NodePool.

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/random.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "kvstore/client/fake_peers.h"
#include "kvstore/client/node_pool.h"

namespace tarn::kvstore {

inline const BlockLayout kLayout{.layers = 1,
                                 .kv_heads = 1,
                                 .head_dim = 16,
                                 .block_tokens = 16,
                                 .type = KvType::kBf16,
                                 .alignment = 64};
inline constexpr absl::Duration kLong = absl::Minutes(10);

inline BlockKey Key(uint32_t number) {
  TokenId token = static_cast<TokenId>(number);
  return ChildKey(BlockKey{}, {&token, 1});
}

// One node with its pool; what it announces is kept as a set.
class Node {
 public:
  Node(const std::string& name, SimEventLoop* loop, LoopbackFabric* fabric, FakeCluster* cluster,
       NodePoolOptions options, std::unique_ptr<PersistentBlockStore> ssd = nullptr)
      : name_(name),
        loop_(loop),
        cluster_(cluster),
        transport_(*fabric, *loop),
        peers_(loop, &transport_, cluster) {
    options.layout = kLayout;
    absl::StatusOr<std::unique_ptr<NodePool>> pool =
        NodePool::Create(options, loop, &transport_, &peers_, std::move(ssd));
    CHECK(pool.ok()) << pool.status();
    pool_ = std::move(*pool);
    pool_->ListenToInventory([this](const InventoryChange& change) { OnChange(change); });
    (*cluster_)[name] = {transport_.Address(), pool_->RegionDescriptors()};
    cluster_->pools[name] = pool_.get();
  }
  ~Node() {
    cluster_->erase(name_);
    cluster_->pools.erase(name_);
  }

  NodePool& pool() { return *pool_; }
  FakePeers& peers() { return peers_; }
  const std::map<BlockKey, BlockAddress>& hbm() const { return announced_.at(Tier::kHbm); }
  const std::map<BlockKey, BlockAddress>& dram() const { return announced_.at(Tier::kDram); }
  const std::map<BlockKey, BlockAddress>& ssd() const { return announced_.at(Tier::kSsd); }

  PageReservation Reserve(int pages, absl::Duration time = kLong) {
    absl::StatusOr<PageReservation> reservation =
        pool_->Reserve(RequestId(1), pages, loop_->Now() + time);
    CHECK(reservation.ok()) << reservation.status();
    return std::move(*reservation);
  }
  // A page with the content that `key` stands for in these tests.
  PageRef Make(PageReservation& reservation, uint32_t key, uint32_t tokens = 16) {
    PageRef page = pool_->Allocate(reservation);
    std::span<std::byte> payload =
        page.bytes().subspan(kLayout.payload_offset(), kLayout.payload_bytes());
    Random(key).Fill(payload);
    SealBlock(kLayout, pool_->IdentityFor(page, Key(key), tokens), page.bytes());
    return page;
  }
  // Caches a block that nobody holds afterwards.
  void Cache(uint32_t key) {
    PageReservation reservation = Reserve(1);
    PageRef page = Make(reservation, key);
    pool_->Publish(page, Key(key), Key(key + 1000), {});
  }
  BlockSource SourceOf(uint32_t key, Tier tier = Tier::kHbm) const {
    return {NodeId(name_), Incarnation(1), name_, tier, announced_.at(tier).at(Key(key))};
  }
  // Puts all cached blocks out of the arena by filling it with others.
  void FlushArena() {
    int pages = pool_->Stats().hbm_pages;
    PageReservation reservation = Reserve(pages);
    std::vector<PageRef> all;
    for (int i = 0; i < pages; ++i) all.push_back(pool_->Allocate(reservation));
  }

 private:
  void OnChange(const InventoryChange& change) {
    if (change.added) {
      announced_[change.tier][change.key] = change.address;
    } else {
      EXPECT_EQ(announced_[change.tier].erase(change.key), 1u) << "removed, but never added";
    }
  }

  const std::string name_;
  SimEventLoop* const loop_;
  FakeCluster* const cluster_;
  LoopbackTransport transport_;
  FakePeers peers_;
  std::map<Tier, std::map<BlockKey, BlockAddress>> announced_{
      {Tier::kHbm, {}}, {Tier::kDram, {}}, {Tier::kSsd, {}}};
  std::unique_ptr<NodePool> pool_;
};

using Results = std::vector<absl::StatusOr<AcquiredBlock>>;

class NodePoolTest : public testing::Test {
 protected:
  std::unique_ptr<Node> Start(const std::string& name, int hbm_pages, int dram_pages = 0,
                              std::unique_ptr<PersistentBlockStore> ssd = nullptr) {
    return Start(name, NodePoolOptions{.hbm_pages = hbm_pages, .dram_pages = dram_pages},
                 std::move(ssd));
  }
  std::unique_ptr<Node> Start(const std::string& name, const NodePoolOptions& options,
                              std::unique_ptr<PersistentBlockStore> ssd = nullptr) {
    return std::make_unique<Node>(name, &loop_, &fabric_, &cluster_, options, std::move(ssd));
  }
  static WantedBlock Want(uint32_t key, std::vector<BlockSource> sources = {},
                          uint32_t tokens = 16) {
    return {Key(key), tokens, std::move(sources), std::nullopt, {}};
  }
  std::unique_ptr<NodePool::Ticket> Begin(Node& node, PageReservation& reservation,
                                          std::vector<WantedBlock> wanted, Results* results,
                                          absl::Duration time = absl::Minutes(1)) {
    return node.pool().Acquire(reservation, std::move(wanted), loop_.Now() + time,
                               [results](Results r) { *results = std::move(r); });
  }
  Results Acquire(Node& node, PageReservation& reservation, std::vector<WantedBlock> wanted) {
    Results results;
    auto ticket = Begin(node, reservation, std::move(wanted), &results);
    loop_.RunUntilIdle();
    return results;
  }
  static void ExpectContent(const AcquiredBlock& block, uint32_t key) {
    std::vector<std::byte> expected(kLayout.payload_bytes());
    Random(key).Fill(expected);
    EXPECT_EQ(std::memcmp(block.page.bytes().data() + kLayout.payload_offset(), expected.data(),
                          expected.size()),
              0);
    EXPECT_EQ(HeaderOf(block.page.bytes()).epoch, block.page.address().epoch);
  }
  // When everybody has let go: nothing held, promised, leaked or under way.
  void ExpectQuiet(Node& node) {
    loop_.RunUntilIdle();
    loop_.RunFor(2 * kLong);
    NodePoolStats stats = node.pool().Stats();
    EXPECT_EQ(stats.hbm_held, 0);
    EXPECT_EQ(stats.hbm_reserved, 0);
    EXPECT_EQ(stats.hbm_free + stats.hbm_cached, stats.hbm_pages);
    EXPECT_EQ(stats.dram_free + stats.dram_cached, stats.dram_pages);
    EXPECT_EQ(stats.pulls_in_flight, 0);
    EXPECT_EQ(stats.leaked, 0);
    EXPECT_EQ(node.hbm().size(), static_cast<size_t>(stats.hbm_cached));
    EXPECT_EQ(node.dram().size(), static_cast<size_t>(stats.dram_cached));
    EXPECT_EQ(stats.ssd_free + stats.ssd_cached, stats.ssd_pages);
    EXPECT_EQ(node.ssd().size(), static_cast<size_t>(stats.ssd_cached));
  }

  SimEventLoop loop_;
  LoopbackFabric fabric_;
  FakeCluster cluster_;
};

}  // namespace tarn::kvstore
