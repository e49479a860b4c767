// The pool with an SSD tier, whose disk is a fake.

#include <algorithm>
#include <string>

#include "kvstore/client/test_pool.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/tenant_fair.h"
#include "kvstore/tier/mem/mem_store.h"

namespace tarn::kvstore {
namespace {

class NodePoolSsdTest : public NodePoolTest {
 protected:
  std::unique_ptr<MemStore> Ssd(absl::Duration latency = absl::ZeroDuration(), int slots = 64) {
    MemStoreOptions options{.layout = kLayout, .slots = slots};
    options.read_latency = latency;
    return std::make_unique<MemStore>(options, &loop_, disk_);
  }
  // A node whose blocks have all been written to its SSD, and are in memory no more.
  std::unique_ptr<Node> NodeWithBlocksOnSsd(const std::string& name, int blocks,
                                            absl::Duration latency = absl::ZeroDuration()) {
    auto node = Start(name, 4, 0, Ssd(latency));
    loop_.RunUntilIdle();
    for (int key = 1; key <= blocks; ++key) {
      node->Cache(key);
      loop_.RunUntilIdle();
    }
    node->FlushArena();
    EXPECT_TRUE(node->hbm().empty());
    EXPECT_EQ(node->ssd().size(), static_cast<size_t>(blocks));
    return node;
  }
  absl::StatusOr<BlockAddress> Stage(Node& node, uint32_t key) {
    absl::StatusOr<BlockAddress> staged = absl::UnknownError("not answered");
    node.pool().Stage(Key(key), loop_.Now() + kLong,
                      [&](const absl::StatusOr<NodePool::StagedBlock>& block) {
                        block.ok() ? staged = block->address : staged = block.status();
                      });
    loop_.RunFor(absl::Milliseconds(10));
    return staged;
  }

  const std::shared_ptr<MemDisk> disk_ = std::make_shared<MemDisk>();
};

TEST_F(NodePoolSsdTest, ComesBackFromTheSsd) {
  auto node = NodeWithBlocksOnSsd("a", 8);
  {
    PageReservation reservation = node->Reserve(2);
    Results results = Acquire(*node, reservation, {Want(1), Want(7)});
    for (int i : {0, 1}) {
      ASSERT_TRUE(results.at(i).ok()) << results[i].status();
      EXPECT_EQ(results[i]->origin, BlockOrigin::kLocalSsd);
      ExpectContent(*results[i], i == 0 ? 1 : 7);
    }
    EXPECT_TRUE(node->hbm().contains(Key(1)));
  }
  EXPECT_EQ(node->pool().Stats().hits_ssd, 2u);
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, GoesThroughDramAndMovesUpWhenUsedAgain) {
  auto node = Start("a", 4, 2, Ssd());
  loop_.RunUntilIdle();
  for (int key = 1; key <= 6; ++key) {
    node->Cache(key);
    loop_.RunUntilIdle();
  }
  EXPECT_EQ(node->ssd().size(), 6u);
  EXPECT_FALSE(node->dram().contains(Key(1))) << "DRAM has two pages";
  node->FlushArena();
  {
    PageReservation reservation = node->Reserve(1);
    Results results = Acquire(*node, reservation, {Want(1)});
    ASSERT_TRUE(results.at(0).ok()) << results[0].status();
    EXPECT_EQ(results[0]->origin, BlockOrigin::kLocalSsd);
  }
  loop_.RunUntilIdle();
  EXPECT_TRUE(node->dram().contains(Key(1)));
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, BlocksOutliveThePool) {
  NodeWithBlocksOnSsd("a", 8).reset();
  auto node = Start("a", 4, 0, Ssd());
  EXPECT_TRUE(node->ssd().empty()) << "the index is read in the background";
  loop_.RunUntilIdle();
  EXPECT_EQ(node->ssd().size(), 8u) << "and what is found is announced";
  EXPECT_EQ(node->pool().Stats().ssd_percent_recovered, 100);
  BlockKey keys[] = {Key(1), Key(2), Key(9)};
  EXPECT_EQ(node->pool().MatchLocal(keys), 2);
  PageReservation reservation = node->Reserve(1);
  Results results = Acquire(*node, reservation, {Want(3)});
  ASSERT_TRUE(results.at(0).ok()) << results[0].status();
  ExpectContent(*results[0], 3);
}

TEST_F(NodePoolSsdTest, NothingIsWrittenWhileTheIndexIsRead) {
  NodeWithBlocksOnSsd("a", 8).reset();
  auto node = Start("a", 4, 0, Ssd());
  node->Cache(20);
  loop_.RunUntilIdle();
  EXPECT_EQ(node->ssd().size(), 8u) << "no restored block had to go for it";
  EXPECT_FALSE(node->ssd().contains(Key(20)));
  node->Cache(21);
  loop_.RunUntilIdle();
  EXPECT_TRUE(node->ssd().contains(Key(21)));
}

TEST_F(NodePoolSsdTest, OtherNodesHaveBlocksStaged) {
  auto a = NodeWithBlocksOnSsd("a", 6), b = Start("b", 4);
  {
    PageReservation reservation = b->Reserve(2);
    Results results =
        Acquire(*b, reservation,
                {Want(1, {a->SourceOf(1, Tier::kSsd)}), Want(2, {a->SourceOf(2, Tier::kSsd)})});
    for (int i : {0, 1}) {
      ASSERT_TRUE(results.at(i).ok()) << results[i].status();
      EXPECT_EQ(results[i]->origin, BlockOrigin::kRemoteSsd);
      ExpectContent(*results[i], i + 1);
    }
  }
  EXPECT_EQ(a->pool().Stats().staged, 2u);
  EXPECT_EQ(b->pool().Stats().hits_remote_ssd, 2u);
  EXPECT_TRUE(a->hbm().contains(Key(1))) << "in its owner's memory for the next who asks";
  ExpectQuiet(*a);
  ExpectQuiet(*b);
}

TEST_F(NodePoolSsdTest, StagingReadsOnceAndAnswersEverybody) {
  auto node = NodeWithBlocksOnSsd("a", 2, absl::Milliseconds(5));
  int answers = 0;
  for (int i = 0; i < 3; ++i) {
    node->pool().Stage(Key(1), loop_.Now() + kLong,
                       [&](const absl::StatusOr<NodePool::StagedBlock>& block) {
                         EXPECT_TRUE(block.ok()) << block.status();
                         ++answers;
                       });
  }
  EXPECT_EQ(answers, 0);
  loop_.RunUntilIdle();
  EXPECT_EQ(answers, 3);
  EXPECT_EQ(node->pool().Stats().ssd.reads, 1u);
  EXPECT_TRUE(Stage(*node, 1).ok()) << "in memory by now";
  EXPECT_EQ(node->pool().Stats().ssd.reads, 1u);
  EXPECT_TRUE(absl::IsNotFound(Stage(*node, 9).status()));
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, StagingGivesWayToPromises) {
  auto node = NodeWithBlocksOnSsd("a", 6);
  for (int key = 1; key <= 4; ++key) EXPECT_TRUE(Stage(*node, key).ok());
  EXPECT_TRUE(Stage(*node, 5).ok()) << "an older one lets go";
  PageReservation all = node->Reserve(4);
  EXPECT_TRUE(absl::IsResourceExhausted(Stage(*node, 6).status())) << "every page is promised";
  all = PageReservation();
  EXPECT_TRUE(Stage(*node, 6).ok());
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, ReservationsGoBeforeStagedPages) {
  auto node = NodeWithBlocksOnSsd("a", 6);
  for (int key = 1; key <= 4; ++key) ASSERT_TRUE(Stage(*node, key).ok());
  PageReservation all = node->Reserve(4);
  EXPECT_EQ(all.remaining(), 4);
}

// Every field of the header and a sample of the payload, on disk: never used, counted, dropped.
TEST_F(NodePoolSsdTest, DamagedBlocksAreNeverUsed) {
  auto node = NodeWithBlocksOnSsd("a", 1);
  const MemDisk good = *disk_;
  const int slot = good.blocks.begin()->first;
  uint64_t lost = 0;
  for (size_t i = 0; i < kLayout.payload_offset() + kLayout.payload_bytes(); i += i < 64 ? 1 : 37) {
    bool reserved_word = i >= offsetof(BlockHeader, reserved) &&
                         i < offsetof(BlockHeader, reserved) + sizeof(BlockHeader::reserved);
    if (reserved_word) continue;
    SCOPED_TRACE("byte " + std::to_string(i));
    node.reset();
    *disk_ = good;
    disk_->blocks.at(slot).bytes()[i] ^= std::byte{0x40};
    node = Start("a", 4, 0, Ssd());
    loop_.RunUntilIdle();
    ASSERT_TRUE(node->ssd().contains(Key(1)));
    PageReservation reservation = node->Reserve(1);
    Results results = Acquire(*node, reservation, {Want(1)});
    ASSERT_FALSE(results.at(0).ok());
    EXPECT_EQ(reservation.remaining(), 1);
    EXPECT_FALSE(node->ssd().contains(Key(1))) << "nobody is sent there again";
    lost += node->pool().Stats().lost;
  }
  EXPECT_GT(lost, 60u);
}

TEST_F(NodePoolSsdTest, AQuickPeerGoesBeforeASlowDisk) {
  auto a = NodeWithBlocksOnSsd("a", 8, absl::Milliseconds(50)), b = Start("b", 16);
  for (int key = 1; key <= 8; ++key) b->Cache(key);
  auto origin = [&](int key) {
    PageReservation reservation = a->Reserve(1);
    Results results = Acquire(*a, reservation, {Want(key, {b->SourceOf(key)})});
    EXPECT_TRUE(results.at(0).ok()) << results[0].status();
    return results[0]->origin;
  };
  {
    // Its rate is not known yet; after this it is.
    PageReservation reservation = a->Reserve(1);
    ASSERT_TRUE(Acquire(*a, reservation, {Want(1)}).at(0).ok());
  }
  for (int key = 2; key <= 8; ++key) EXPECT_EQ(origin(key), BlockOrigin::kRemote);
}

TEST_F(NodePoolSsdTest, AdmissionDecidesWhatIsWritten) {
  NodePoolOptions options{.hbm_pages = 8};
  options.ssd_writes.bytes_a_second = static_cast<int64_t>(kLayout.page_bytes());
  auto node = std::make_unique<Node>("a", &loop_, &fabric_, &cluster_, options, Ssd());
  loop_.RunUntilIdle();
  for (int key = 1; key <= 3; ++key) node->Cache(key);
  loop_.RunUntilIdle();
  EXPECT_EQ(node->ssd().size(), 1u) << "one block a second";
  EXPECT_EQ(node->pool().Stats().ssd_refused, 2u);
}

// Learned worth and tenants' shares, as nodes have them.
TEST_F(NodePoolSsdTest, TenantsKeepTheirShares) {
  NodePoolOptions options{.hbm_pages = 4};
  TenantFairPolicy::Options shares;
  shares.shares[TenantId("quiet")] = {.guaranteed = 3};
  options.eviction = [&shares](Tier, int pages) {
    return std::make_unique<TenantFairPolicy>(
        shares, [pages] { return std::make_unique<LearnedPolicy>(pages); });
  };
  auto node = std::make_unique<Node>("a", &loop_, &fabric_, &cluster_, options, Ssd({}, 16));
  loop_.RunUntilIdle();
  auto cache = [&](uint32_t key, const char* tenant) {
    PageReservation reservation = node->Reserve(1);
    PageRef page = node->Make(reservation, key);
    node->pool().Publish(page, Key(key), Key(key + 1000), {.tenant = TenantId(tenant)});
    page = PageRef();
    loop_.RunUntilIdle();
  };
  for (uint32_t key = 1; key <= 3; ++key) cache(key, "quiet");
  for (uint32_t key = 10; key < 60; ++key) cache(key, "flood");
  for (uint32_t key = 1; key <= 3; ++key) {
    EXPECT_TRUE(node->hbm().contains(Key(key))) << key;
    EXPECT_TRUE(node->ssd().contains(Key(key))) << key;
  }
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, CancelAtEveryStage) {
  auto a = NodeWithBlocksOnSsd("a", 6, absl::Milliseconds(2)), b = Start("b", 4);
  for (int stage = 0; stage < 10; ++stage) {
    SCOPED_TRACE(stage);
    PageReservation reservation = b->Reserve(4);
    Results results;
    auto ticket = Begin(*b, reservation,
                        {Want(1 + stage % 6, {a->SourceOf(1 + stage % 6, Tier::kSsd)})}, &results);
    for (int i = 0; i < stage; ++i) loop_.RunOne();
    ticket.reset();
    results.clear();
    reservation = PageReservation();
    loop_.RunUntilIdle();
    b->FlushArena();
  }
  ExpectQuiet(*a);
  ExpectQuiet(*b);
}

TEST_F(NodePoolSsdTest, ThePoolGoesWhileTheDiskIsBusy) {
  auto node = NodeWithBlocksOnSsd("a", 6, absl::Milliseconds(5));
  {
    PageReservation reservation = node->Reserve(2);
    Results results;
    auto ticket = Begin(*node, reservation, {Want(1), Want(2)}, &results);
    node->pool().Stage(Key(3), loop_.Now() + kLong, [](const auto&) {});
    loop_.RunOne();
  }
  node.reset();
  loop_.RunUntilIdle();
}

TEST_F(NodePoolSsdTest, WritesBackFromTierToTier) {
  // Of DRAM, max_ssd_writes of the next victims are on the SSD ahead of their eviction.
  constexpr int kHbm = 8, kDram = 24, kMargin = 16, kBlocks = 60;
  auto node = Start("a",
                    {.hbm_pages = kHbm,
                     .dram_pages = kDram,
                     .write_policy = WritePolicy::kBack,
                     .max_ssd_writes = kMargin},
                    Ssd());
  loop_.RunUntilIdle();
  for (uint32_t key = 0; key < kBlocks; ++key) {
    node->Cache(key);
    loop_.RunUntilIdle();
  }
  NodePoolStats stats = node->pool().Stats();
  EXPECT_EQ(stats.overtaken_hbm + stats.overtaken_dram, 0u);
  const auto evicted = static_cast<size_t>(stats.evictions_dram);
  EXPECT_GT(evicted, 20u);
  EXPECT_LE(node->ssd().size(), evicted + kMargin);
  for (uint32_t key = 0; key < kBlocks; ++key) {
    const bool in_memory = node->hbm().contains(Key(key)) || node->dram().contains(Key(key));
    EXPECT_TRUE(in_memory || node->ssd().contains(Key(key))) << key;
    if (key >= evicted + kMargin) {
      EXPECT_FALSE(node->ssd().contains(Key(key))) << key << " was never in danger";
    }
  }
  std::map<BlockOrigin, int> origins;
  for (uint32_t key = kBlocks; key-- > 0;) {
    PageReservation reservation = node->Reserve(1);
    Results results = Acquire(*node, reservation, {Want(key)});
    ASSERT_TRUE(results.at(0).ok()) << key << ": " << results[0].status();
    ExpectContent(*results[0], key);
    ++origins[results[0]->origin];
  }
  EXPECT_EQ(origins[BlockOrigin::kLocalHbm], kHbm);
  EXPECT_GT(origins[BlockOrigin::kLocalSsd], 0);
  EXPECT_GT(origins[BlockOrigin::kLocalDram], 0);
  ExpectQuiet(*node);
}

TEST_F(NodePoolSsdTest, WritesBackFromTheArenaWhereThereIsNoDram) {
  auto node =
      Start("a", {.hbm_pages = 16, .write_policy = WritePolicy::kBack, .max_ssd_writes = 4}, Ssd());
  loop_.RunUntilIdle();
  for (uint32_t key = 0; key < 12; ++key) node->Cache(key);
  loop_.RunUntilIdle();
  EXPECT_TRUE(node->ssd().empty());
  for (uint32_t key = 12; key < 30; ++key) {
    node->Cache(key);
    loop_.RunUntilIdle();
  }
  EXPECT_EQ(node->ssd().size(), 14u + 4u);
  ExpectQuiet(*node);
}

}  // namespace
}  // namespace tarn::kvstore
