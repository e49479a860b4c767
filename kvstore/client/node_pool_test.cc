#include "kvstore/client/node_pool.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "kvstore/client/test_pool.h"

namespace tarn::kvstore {
namespace {

TEST_F(NodePoolTest, RefusesWhatItCannotPromise) {
  auto node = Start("a", 4);
  PageReservation three = node->Reserve(3);
  absl::StatusOr<PageReservation> two = node->pool().Reserve(RequestId(2), 2, loop_.Now());
  EXPECT_TRUE(absl::IsResourceExhausted(two.status())) << two.status();
  EXPECT_NE(Message(two.status()).find("3 of these are promised"), std::string::npos);
  three = PageReservation();
  EXPECT_TRUE(node->pool().Reserve(RequestId(2), 4, loop_.Now()).ok());
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, HitInTheArena) {
  auto node = Start("a", 4);
  node->Cache(1);
  {
    PageReservation reservation = node->Reserve(2);
    Results results = Acquire(*node, reservation, {Want(1)});
    ASSERT_TRUE(results.at(0).ok());
    EXPECT_EQ(results[0]->origin, BlockOrigin::kLocalHbm);
    ExpectContent(*results[0], 1);
    EXPECT_EQ(reservation.remaining(), 1) << "nobody held it: one page";
    std::optional<PageRef> again = node->pool().HoldCached(reservation, Key(1));
    EXPECT_TRUE(again.has_value());
    EXPECT_EQ(reservation.remaining(), 1) << "held already: none";
    EXPECT_FALSE(node->pool().HoldCached(reservation, Key(2)).has_value());
  }
  EXPECT_EQ(node->pool().Stats().hits_hbm, 2u);
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, MissGivesThePageBack) {
  auto node = Start("a", 4);
  {
    PageReservation reservation = node->Reserve(2);
    Results results = Acquire(*node, reservation, {Want(1)});
    EXPECT_TRUE(absl::IsNotFound(results.at(0).status()));
    EXPECT_EQ(reservation.remaining(), 2);
  }
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, ComesBackFromDram) {
  auto node = Start("a", 4, 8);
  node->Cache(1);
  loop_.RunUntilIdle();
  EXPECT_TRUE(node->dram().contains(Key(1))) << "written through";
  node->FlushArena();
  EXPECT_FALSE(node->hbm().contains(Key(1)));
  BlockKey keys[] = {Key(1), Key(2)};
  EXPECT_EQ(node->pool().MatchLocal(keys), 1);
  {
    PageReservation reservation = node->Reserve(1);
    Results results = Acquire(*node, reservation, {Want(1)});
    ASSERT_TRUE(results.at(0).ok()) << results[0].status();
    EXPECT_EQ(results[0]->origin, BlockOrigin::kLocalDram);
    ExpectContent(*results[0], 1);
    EXPECT_TRUE(node->hbm().contains(Key(1)));
  }
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, PullsFromAPeerAndOffersItToOthers) {
  auto a = Start("a", 4), b = Start("b", 4), c = Start("c", 4);
  a->Cache(1);
  {
    PageReservation reservation = b->Reserve(1);
    Results results = Acquire(*b, reservation, {Want(1, {a->SourceOf(1)})});
    ASSERT_TRUE(results.at(0).ok()) << results[0].status();
    EXPECT_EQ(results[0]->origin, BlockOrigin::kRemote);
    ExpectContent(*results[0], 1);
  }
  {
    PageReservation reservation = c->Reserve(1);
    Results results = Acquire(*c, reservation, {Want(1, {b->SourceOf(1)})});
    ASSERT_TRUE(results.at(0).ok()) << "restamped with b's epoch: " << results[0].status();
  }
  EXPECT_EQ(b->pool().Stats().hits_remote, 1u);
  EXPECT_EQ(b->pool().Stats().pulled_bytes, kLayout.payload_offset() + kLayout.payload_bytes());
  ExpectQuiet(*b);
  ExpectQuiet(*c);
}

TEST_F(NodePoolTest, TailIsPrivate) {
  auto a = Start("a", 4), b = Start("b", 4);
  PageReservation pages = a->Reserve(1);
  PageRef tail = a->Make(pages, 1, 5);
  BlockSource source{NodeId("a"), Incarnation(1), "a", Tier::kHbm, tail.address()};
  {
    PageReservation reservation = b->Reserve(2);
    Results results = Acquire(*b, reservation, {Want(1, {source}, 5)});
    ASSERT_TRUE(results.at(0).ok()) << results[0].status();
    ExpectContent(*results[0], 1);
    EXPECT_TRUE(b->hbm().empty());
    EXPECT_FALSE(b->pool().HoldCached(reservation, Key(1)).has_value());
  }
  EXPECT_EQ(b->pool().Stats().hbm_free, 4);
}

TEST_F(NodePoolTest, DamagedBlocksAreNeverUsed) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  PageReservation hold = a->Reserve(1);
  std::optional<PageRef> page = a->pool().HoldCached(hold, Key(1));
  ASSERT_TRUE(page.has_value());
  std::span<std::byte> bytes = page->bytes();
  PageReservation reservation = b->Reserve(1);
  // Every byte of the header but the reserved word, and a sample of the payload.
  for (size_t i = 0; i < kLayout.payload_offset() + kLayout.payload_bytes(); i += i < 64 ? 1 : 37) {
    bool reserved_word = i >= offsetof(BlockHeader, reserved) &&
                         i < offsetof(BlockHeader, reserved) + sizeof(BlockHeader::reserved);
    if (reserved_word) continue;
    bytes[i] ^= std::byte{0x40};
    Results results = Acquire(*b, reservation, {Want(1, {a->SourceOf(1)})});
    EXPECT_FALSE(results.at(0).ok()) << "byte " << i;
    EXPECT_EQ(reservation.remaining(), 1);
    bytes[i] ^= std::byte{0x40};
  }
  EXPECT_GT(b->pool().Stats().verify_failures, 60u);
  EXPECT_TRUE(Acquire(*b, reservation, {Want(1, {a->SourceOf(1)})}).at(0).ok());
}

TEST_F(NodePoolTest, TriesTheNextSource) {
  auto a = Start("a", 4), b = Start("b", 4), c = Start("c", 4), d = Start("d", 4);
  for (Node* node : {a.get(), b.get(), c.get()}) node->Cache(1);
  BlockSource gone = a->SourceOf(1), evicted = b->SourceOf(1), good = c->SourceOf(1);
  a.reset();
  b->FlushArena();
  PageReservation reservation = d->Reserve(1);
  Results results = Acquire(*d, reservation, {Want(1, {gone, evicted})});
  EXPECT_TRUE(absl::IsNotFound(results.at(0).status())) << results[0].status();
  results = Acquire(*d, reservation, {Want(1, {gone, evicted, good})});
  ASSERT_TRUE(results.at(0).ok()) << results[0].status();
  ExpectContent(*results[0], 1);
  EXPECT_EQ(d->pool().Stats().verify_failures, 2u);
  EXPECT_EQ(d->pool().Stats().pull_failures, 1u) << "who failed before is tried last";
}

TEST_F(NodePoolTest, PeerDiesDuringThePull) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation reservation = b->Reserve(1);
    // Connected by now; the block is another one.
    a->Cache(2);
    ASSERT_TRUE(Acquire(*b, reservation, {Want(2, {a->SourceOf(2)})}).at(0).ok());
    reservation = b->Reserve(1);
    Results results;
    auto ticket = Begin(*b, reservation, {Want(1, {a->SourceOf(1)})}, &results);
    loop_.RunOne();  // the handshake
    a.reset();
    loop_.RunUntilIdle();
    EXPECT_TRUE(absl::IsUnavailable(results.at(0).status())) << results[0].status();
    EXPECT_EQ(b->peers().forgotten(), 1);
    EXPECT_EQ(reservation.remaining(), 1);
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, CancelAtEveryStage) {
  auto a = Start("a", 4), b = Start("b", 4, 4);
  a->Cache(1);
  for (int stage = 0; stage < 8; ++stage) {
    SCOPED_TRACE(stage);
    {
      PageReservation reservation = b->Reserve(4);
      bool told = false;
      std::vector<WantedBlock> wanted;
      wanted.push_back(Want(1, {a->SourceOf(1)}));
      auto ticket = b->pool().Acquire(reservation, std::move(wanted), loop_.Now() + kLong,
                                      [&](const Results&) { told = true; });
      for (int i = 0; i < stage; ++i) loop_.RunOne();
      bool told_before = told;
      ticket.reset();
      loop_.RunUntilIdle();
      EXPECT_EQ(told, told_before) << "told after the cancel";
      EXPECT_EQ(reservation.remaining() + (b->pool().Stats().hbm_held), told ? 3 : 4);
    }
    ExpectQuiet(*b);
    b->FlushArena();
  }
}

TEST_F(NodePoolTest, OneTransferForAllWhoWant) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation first_pages = b->Reserve(2), second_pages = b->Reserve(2);
    Results first, second;
    auto first_ticket = Begin(*b, first_pages, {Want(1, {a->SourceOf(1)})}, &first);
    auto second_ticket = Begin(*b, second_pages, {Want(1, {a->SourceOf(1)})}, &second);
    EXPECT_EQ(b->pool().Stats().pulls_in_flight, 1);
    loop_.RunUntilIdle();
    ASSERT_TRUE(first.at(0).ok() && second.at(0).ok());
    EXPECT_EQ(first[0]->page.page(), second[0]->page.page());
    EXPECT_EQ(first_pages.remaining() + second_pages.remaining(), 3) << "one page in all";
  }
  EXPECT_EQ(b->pool().Stats().pulled_bytes, kLayout.payload_offset() + kLayout.payload_bytes());
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, ThePullGoesOnWhenTheFirstOneCancels) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation first_pages = b->Reserve(2), second_pages = b->Reserve(2);
    Results first, second;
    auto first_ticket = Begin(*b, first_pages, {Want(1, {a->SourceOf(1)})}, &first);
    auto second_ticket = Begin(*b, second_pages, {Want(1, {a->SourceOf(1)})}, &second);
    first_ticket.reset();
    EXPECT_EQ(first_pages.remaining(), 2);
    loop_.RunUntilIdle();
    EXPECT_TRUE(first.empty());
    ASSERT_TRUE(second.at(0).ok());
    EXPECT_EQ(second_pages.remaining(), 1);
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, SameBlockTwiceInOneCall) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation reservation = b->Reserve(2);
    std::vector<WantedBlock> wanted;
    for (int i = 0; i < 2; ++i) wanted.push_back(Want(1, {a->SourceOf(1)}));
    Results results = Acquire(*b, reservation, std::move(wanted));
    ASSERT_TRUE(results.at(0).ok() && results.at(1).ok());
    EXPECT_EQ(reservation.remaining(), 1);
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, DeadlineGivesThePagesBackFirst) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation reservation = b->Reserve(1);
    Results results;
    auto ticket = Begin(*b, reservation, {Want(1, {a->SourceOf(1)})}, &results, absl::Seconds(1));
    loop_.SetNow(loop_.Now() + absl::Seconds(2));
    Results second;
    loop_.RunUntilIdle();
    ASSERT_EQ(results.size(), 1u);
    // Tasks that are late run in the order of their times: the pull may have been first.
    EXPECT_TRUE(results[0].ok() || absl::IsDeadlineExceeded(results[0].status()));
    EXPECT_EQ(reservation.remaining(), results[0].ok() ? 0 : 1);
    auto expired = Begin(*b, reservation, {Want(2, {a->SourceOf(1)})}, &second, -absl::Seconds(1));
    loop_.RunUntilIdle();
    EXPECT_FALSE(second.at(0).ok());
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, EmptyReservationIsSaid) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  a->Cache(2);
  {
    PageReservation reservation = b->Reserve(1);
    std::vector<WantedBlock> wanted;
    wanted.push_back(Want(1, {a->SourceOf(1)}));
    wanted.push_back(Want(2, {a->SourceOf(2)}));
    Results results = Acquire(*b, reservation, std::move(wanted));
    EXPECT_TRUE(results.at(0).ok());
    EXPECT_TRUE(absl::IsResourceExhausted(results.at(1).status()));
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, CopiesNeverKeepPagesFromARequest) {
  auto node = Start("a", 4, 8);
  for (uint32_t key = 1; key <= 4; ++key) node->Cache(key);
  ASSERT_EQ(node->pool().Stats().hbm_held, 4) << "by copies to DRAM";
  {
    PageReservation two = node->Reserve(2);
    EXPECT_EQ(node->pool().Stats().hbm_held, 2) << "only as many copies let go as needed";
    PageReservation reservation = node->Reserve(2);
    std::vector<PageRef> made;
    for (uint32_t key : {5, 6}) made.push_back(node->Make(reservation, key));
    loop_.RunUntilIdle();
  }
  EXPECT_EQ(node->dram().size(), 2u) << "of reused pages nothing was copied";
  for (uint32_t key = 1; key <= 4; ++key) {
    PageReservation reservation = node->Reserve(1);
    Results results = Acquire(*node, reservation, {Want(key)});
    if (results.at(0).ok()) ExpectContent(*results[0], key);
  }
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, LeakedPagesAreCounted) {
  auto node = Start("a", 4);
  PageReservation reservation = node->Reserve(3, absl::Seconds(1));
  PageRef page = node->pool().Allocate(reservation);
  EXPECT_EQ(node->pool().Stats().leaked, 0);
  loop_.RunFor(absl::Seconds(2));
  EXPECT_EQ(node->pool().Stats().leaked, 3);
  page = PageRef();
  reservation = PageReservation();
  EXPECT_EQ(node->pool().Stats().leaked, 0);
}

TEST_F(NodePoolTest, MadeHereWhileOnItsWay) {
  auto a = Start("a", 4), b = Start("b", 4);
  a->Cache(1);
  {
    PageReservation reservation = b->Reserve(3);
    Results results;
    auto ticket = Begin(*b, reservation, {Want(1, {a->SourceOf(1)})}, &results);
    PageRef made = b->Make(reservation, 1);
    b->pool().Publish(made, Key(1), Key(0), {});
    loop_.RunUntilIdle();
    ASSERT_TRUE(results.at(0).ok());
    EXPECT_EQ(results[0]->page.page(), made.page());
    EXPECT_EQ(reservation.remaining(), 2);
  }
  ExpectQuiet(*b);
}

TEST_F(NodePoolTest, SecondPublicationStaysPrivate) {
  auto node = Start("a", 4);
  {
    PageReservation reservation = node->Reserve(2);
    PageRef one = node->Make(reservation, 1), two = node->Make(reservation, 1);
    node->pool().Publish(one, Key(1), Key(0), {});
    node->pool().Publish(two, Key(1), Key(0), {});
  }
  EXPECT_EQ(node->pool().Stats().hbm_cached, 1);
  ExpectQuiet(*node);
}

TEST_F(NodePoolTest, CreateNamesWhatIsWrong) {
  LoopbackTransport transport(fabric_, loop_);
  FakePeers peers(&loop_, &transport, &cluster_);
  NodePoolOptions options{.layout = kLayout, .hbm_pages = 0};
  absl::Status status = NodePool::Create(options, &loop_, &transport, &peers).status();
  EXPECT_NE(Message(status).find("hbm_pages"), std::string::npos) << status;
}

// Three nodes, few pages, any operation at any time: what is said to be a block always is that
// block, promises hold, and nothing is left at the end.
TEST_F(NodePoolTest, RandomOperations) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    std::vector<std::unique_ptr<Node>> nodes;
    for (const char* name : {"a", "b", "c"}) nodes.push_back(Start(name, 8, 40));
    struct Request {
      Node* node;
      PageReservation pages;
      std::vector<PageRef> held;
      std::unique_ptr<NodePool::Ticket> ticket;
    };
    std::map<int, std::unique_ptr<Request>> requests;
    int last = 0;
    auto any = [&](auto& from) {
      return std::next(from.begin(), static_cast<int64_t>(random.UniformInt(from.size())));
    };
    auto acquire = [&](int id, Request& request) {
      std::vector<WantedBlock> wanted;
      std::vector<uint32_t> keys;
      for (int i = static_cast<int>(random.UniformInt(int64_t{1}, 3)); i > 0; --i) {
        uint32_t key = static_cast<uint32_t>(random.UniformInt(uint64_t{30}));
        keys.push_back(key);
        wanted.push_back(Want(key));
        for (auto& node : nodes) {
          if (node->hbm().contains(Key(key))) wanted.back().sources.push_back(node->SourceOf(key));
        }
      }
      request.ticket = request.node->pool().Acquire(
          request.pages, std::move(wanted), loop_.Now() + absl::Seconds(1),
          [&requests, id, keys](Results results) {
            for (size_t i = 0; i < results.size(); ++i) {
              if (!results[i].ok()) continue;
              ExpectContent(*results[i], keys[i]);
              requests.at(id)->held.push_back(std::move(results[i]->page));
            }
          });
    };
    for (int step = 0; step < 1000; ++step) {
      switch (random.UniformInt(uint64_t{7})) {
        case 0: {
          Node* node = nodes[random.UniformInt(nodes.size())].get();
          auto pages = node->pool().Reserve(RequestId(step),
                                            static_cast<int>(random.UniformInt(uint64_t{6})),
                                            loop_.Now() + absl::Hours(10));
          if (!pages.ok()) break;
          requests[++last] = std::make_unique<Request>(Request{node, std::move(*pages), {}, {}});
          break;
        }
        case 1:
          if (!requests.empty()) requests.erase(any(requests));
          break;
        case 2: {
          if (requests.empty()) break;
          Request& request = *any(requests)->second;
          if (request.pages.remaining() == 0) break;
          uint32_t key = static_cast<uint32_t>(random.UniformInt(uint64_t{30}));
          request.held.push_back(request.node->Make(request.pages, key));
          request.node->pool().Publish(request.held.back(), Key(key), Key(key / 2 + 100), {});
          break;
        }
        case 3: {
          if (requests.empty()) break;
          auto it = any(requests);
          if (it->second->ticket == nullptr) acquire(it->first, *it->second);
          break;
        }
        case 4:
          if (!requests.empty()) any(requests)->second->ticket.reset();
          break;
        default:
          for (uint64_t i = random.UniformInt(uint64_t{4}); i > 0; --i) loop_.RunOne();
      }
      for (auto& node : nodes) {
        NodePoolStats stats = node->pool().Stats();
        ASSERT_LE(stats.hbm_reserved, stats.hbm_pages - stats.hbm_held);
        ASSERT_EQ(stats.hbm_cached, static_cast<int>(node->hbm().size()));
      }
    }
    requests.clear();
    uint64_t remote = 0, dram = 0;
    for (auto& node : nodes) {
      ExpectQuiet(*node);
      remote += node->pool().Stats().hits_remote;
      dram += node->pool().Stats().hits_dram;
    }
    EXPECT_GT(remote, 0u);
    EXPECT_GT(dram, 0u);
  }
}

// Write-back.

class WriteBackTest : public NodePoolTest {
 protected:
  static constexpr int kPages = 32, kMargin = 4;  // max_copies, and a sixteenth of the pages
  const NodePoolOptions options_{
      .hbm_pages = kPages, .dram_pages = 64, .write_policy = WritePolicy::kBack};
  // Whether blocks [first, end) can be had, from the arena or DRAM.
  void ExpectAll(Node& node, uint32_t first, uint32_t end, BlockOrigin origin) {
    for (uint32_t key = first; key < end; ++key) {
      PageReservation reservation = node.Reserve(1);
      Results results = Acquire(node, reservation, {Want(key)});
      ASSERT_TRUE(results.at(0).ok()) << key << ": " << results[0].status();
      EXPECT_EQ(results[0]->origin, origin) << key;
      ExpectContent(*results[0], key);
    }
  }
};

TEST_F(WriteBackTest, WritesOnlyWhatIsAboutToGo) {
  auto node = Start("a", options_);
  for (uint32_t key = 0; key < kPages - kMargin; ++key) node->Cache(key);
  loop_.RunUntilIdle();
  EXPECT_TRUE(node->dram().empty()) << "there is room";
  for (uint32_t key = kPages - kMargin; key < 48; ++key) {
    node->Cache(key);
    loop_.RunUntilIdle();
  }
  ASSERT_EQ(node->hbm().size(), size_t{kPages});
  for (uint32_t key = 0; key < 48; ++key) {
    EXPECT_EQ(node->hbm().contains(Key(key)), key >= 16) << key;
    EXPECT_EQ(node->dram().contains(Key(key)), key < 16 + kMargin) << key;
  }
  EXPECT_EQ(node->pool().Stats().overtaken_hbm, 0u);
  ExpectAll(*node, 0, 4, BlockOrigin::kLocalDram);
  ExpectQuiet(*node);
}

TEST_F(WriteBackTest, WhatEvictionOvertakesIsCounted) {
  auto node = Start("a", options_);
  for (uint32_t key = 0; key < kPages; ++key) node->Cache(key);
  loop_.RunUntilIdle();
  ASSERT_EQ(node->dram().size(), size_t{kMargin});
  for (uint32_t key = 100; key < 100 + kPages; ++key) node->Cache(key);  // no turn for copies
  EXPECT_TRUE(node->hbm().contains(Key(100 + kPages - 1))) << "nobody waited";
  loop_.RunUntilIdle();
  EXPECT_EQ(node->pool().Stats().overtaken_hbm, uint64_t{kPages - kMargin});
  ExpectAll(*node, 0, kMargin, BlockOrigin::kLocalDram);
  ExpectQuiet(*node);
}

TEST_F(WriteBackTest, ABlockThatIsUsedAgainIsNotWritten) {
  auto node = Start("a", options_);
  for (uint32_t key = 0; key < 200; ++key) {
    node->Cache(key);
    loop_.RunUntilIdle();
    ExpectAll(*node, 0, 1, BlockOrigin::kLocalHbm);
  }
  EXPECT_FALSE(node->dram().contains(Key(0)));
  EXPECT_EQ(node->pool().Stats().overtaken_hbm, 0u);
  ExpectQuiet(*node);
}

}  // namespace
}  // namespace tarn::kvstore
