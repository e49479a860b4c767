// The pool as a whole, in one process: nodes over UCX, a directory over gRPC, a subscriber.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "common/metrics/registry.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "kvstore/client/pool_node.h"
#include "kvstore/directory/service.h"
#include "kvstore/directory/subscriber.h"
#include "kvstore/server/deferred_store.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);
const BlockLayout kLayout{.layers = 2,
                          .kv_heads = 2,
                          .head_dim = 32,
                          .block_tokens = 16,
                          .type = KvType::kF32,
                          .alignment = 64};

BlockKey Key(TokenId token) { return ChildKey(BlockKey{}, {&token, 1}); }

// Asks on the loop until it holds; false after kLimit.
bool Eventually(EventLoop& loop, const std::function<bool()>& holds) {
  return WaitOnLoop(loop, kLimit, holds);
}

class DirectoryProcess {
 public:
  explicit DirectoryProcess(const std::string& listen) : loop_("directory") {
    service_ = std::make_unique<DirectoryService>(&loop_);
    auto server = RpcServer::Start({.listen = listen}, {service_.get()});
    CHECK(server.ok()) << server.status();
    rpc_ = std::move(*server);
  }
  ~DirectoryProcess() {
    rpc_->Shutdown(absl::ZeroDuration());
    RunOnLoop(loop_, [this] { service_.reset(); });
  }
  std::string address() const { return rpc_->address(); }

 private:
  RealEventLoop loop_;
  std::unique_ptr<DirectoryService> service_;
  std::unique_ptr<RpcServer> rpc_;
};

v1::ModelDescriptor ModelOf(uint64_t fingerprint) {
  v1::ModelDescriptor model;
  model.set_name("model-" + std::to_string(fingerprint));
  model.set_fingerprint(fingerprint);
  *model.mutable_layout() = ToProto(kLayout);
  return model;
}

std::unique_ptr<PoolNode> StartNode(const std::string& directory, const std::string& name,
                                    uint64_t fingerprint) {
  PoolNodeOptions options;
  options.node_id = name;
  options.role = v1::ROLE_PREFILL;
  options.model = ModelOf(fingerprint);
  options.directories = {directory};
  options.hbm_pages = 8;
  options.dram_bytes = 8 * kLayout.page_bytes();
  absl::StatusOr<std::unique_ptr<PoolNode>> node = PoolNode::Create(options);
  CHECK(node.ok()) << node.status();
  absl::Status started = (*node)->Start({}, nullptr);
  CHECK(started.ok()) << started;
  return std::move(*node);
}

void Publish(PoolNode& node, TokenId token) {
  node.RunOnLoop([&] {
    NodePool& pool = *node.pool();
    auto pages = pool.Reserve(RequestId(1), 1, absl::InfiniteFuture());
    PageRef page = pool.Allocate(*pages);
    Random(token).Fill(page.bytes().subspan(kLayout.payload_offset(), kLayout.payload_bytes()));
    SealBlock(kLayout, pool.IdentityFor(page, Key(token), 16), page.bytes());
    pool.Publish(page, Key(token), Key(token - 1), {});
  });
}

// This program once more: node "a", which publishes the blocks 1 to kOwnBlocks and waits to be
// killed.
constexpr char kNodeFlag[] = "--node=";
constexpr TokenId kOwnBlocks = 3;

int RunNode(const std::string& directory) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto node = StartNode(directory, "a", 1);
  for (TokenId token = 1; token <= kOwnBlocks; ++token) Publish(*node, token);
  while (true) pause();
}

class NodeProcess {
 public:
  explicit NodeProcess(const std::string& directory) {
    std::string self = "/proc/self/exe", flag = kNodeFlag + directory;
    char* argv[] = {self.data(), flag.data(), nullptr};
    CHECK_EQ(posix_spawn(&pid_, self.c_str(), nullptr, nullptr, argv, environ), 0);
  }
  ~NodeProcess() { Kill(); }
  void Kill() {
    if (pid_ == 0) return;
    PCHECK(kill(pid_, SIGKILL) == 0);
    PCHECK(waitpid(std::exchange(pid_, 0), nullptr, 0) > 0);
  }

 private:
  pid_t pid_ = 0;
};

class PoolTest : public testing::Test {
 protected:
  PoolTest() : directory_(std::make_unique<DirectoryProcess>("127.0.0.1:0")) {
    address_ = directory_->address();
    RunOnLoop(loop_, [this] {
      subscriber_ = DirectorySubscriber::Start(
          {.directories = {address_}}, &loop_,
          {.on_joined = [this](const ClusterNode& n) { events_.push_back("+" + n.info.node_id()); },
           .on_left = [this](const NodeId& n,
                             Incarnation) { events_.push_back("-" + n.value()); }});
    });
  }
  ~PoolTest() override {
    RunOnLoop(loop_, [this] { subscriber_.reset(); });
  }

  std::unique_ptr<PoolNode> Start(const std::string& name, uint64_t fingerprint = 1) {
    return StartNode(address_, name, fingerprint);
  }
  std::unique_ptr<DeferredStore> StartStore(size_t pages) {
    return StartStore("store", pages, &registry_);
  }
  std::unique_ptr<DeferredStore> StartStore(const std::string& name, size_t pages,
                                            metrics::Registry* registry) {
    PoolNodeOptions options;
    options.node_id = name;
    options.dram_bytes = pages * kLayout.page_bytes();
    options.server.listen = {"127.0.0.1", 0};
    options.directories = {address_};
    options.registry = registry;
    return std::make_unique<DeferredStore>(std::move(options));
  }
  std::vector<BlockSource> SourcesOf(TokenId token) {
    std::vector<BlockSource> sources;
    RunOnLoop(loop_, [&] { sources = subscriber_->index().Sources(Key(token), NodeId()); });
    return sources;
  }
  bool EventuallyListed(TokenId token, size_t places) {
    return Eventually(
        loop_, [&] { return subscriber_->index().Sources(Key(token), NodeId()).size() == places; });
  }
  // Waits until `node`, and nobody else or somebody else too, has the block.
  bool EventuallyAt(const std::string& node, TokenId token, bool alone = false) {
    return Eventually(loop_, [&] {
      bool there = false, others = false;
      for (const BlockSource& source : subscriber_->index().Sources(Key(token))) {
        (source.node.value() == node ? there : others) = true;
      }
      return there && !(alone && others);
    });
  }
  // Waits until a line of the store's metrics starts so.
  bool EventuallyShows(const std::string& line) { return EventuallyShows(registry_, line); }
  bool EventuallyShows(const metrics::Registry& registry, const std::string& line) {
    return Eventually(loop_,
                      [&] { return registry.Expose().find("\n" + line) != std::string::npos; });
  }
  void ExpectStoreHoldsNothing() {
    EXPECT_TRUE(EventuallyShows("tarn_kv_blocks{tier=\"dram\",state=\"held\"} 0\n"));
    EXPECT_TRUE(EventuallyShows("tarn_kv_blocks{tier=\"dram\",state=\"reserved\"} 0\n"));
    EXPECT_TRUE(EventuallyShows("tarn_kv_pulls_in_flight 0\n"));
    EXPECT_TRUE(EventuallyShows("tarn_kv_leaked_pages 0\n"));
  }
  // Pulls the block; says where it came from, and checks its bytes.
  static absl::StatusOr<BlockOrigin> Pull(PoolNode& node, TokenId token,
                                          std::vector<BlockSource> sources) {
    std::promise<absl::StatusOr<BlockOrigin>> result;
    std::unique_ptr<NodePool::Ticket> ticket;
    PageReservation pages;
    node.RunOnLoop([&] {
      pages = *node.pool()->Reserve(RequestId(2), 1, absl::InfiniteFuture());
      std::vector<WantedBlock> wanted;
      wanted.push_back({Key(token), 16, std::move(sources), std::nullopt});
      ticket = node.pool()->Acquire(
          pages, std::move(wanted), node.loop()->Now() + kLimit,
          [&](std::vector<absl::StatusOr<AcquiredBlock>> blocks) {
            absl::StatusOr<BlockOrigin> origin = absl::UnknownError("no block");
            if (!blocks[0].ok()) origin = blocks[0].status();
            if (blocks[0].ok()) {
              origin = blocks[0]->origin;
              std::vector<std::byte> expected(kLayout.payload_bytes());
              Random(token).Fill(expected);
              EXPECT_EQ(std::memcmp(blocks[0]->page.bytes().data() + kLayout.payload_offset(),
                                    expected.data(), expected.size()),
                        0);
            }
            blocks.clear();
            pages = PageReservation();
            result.set_value(std::move(origin));
          });
    });
    return result.get_future().get();
  }

  metrics::Registry registry_;  // the store's
  RealEventLoop loop_{"subscriber"};
  std::unique_ptr<DirectoryProcess> directory_;
  std::string address_;
  std::unique_ptr<DirectorySubscriber> subscriber_;
  std::vector<std::string> events_;  // on loop_
};

TEST_F(PoolTest, TheProbeLeavesNoTraceInTheFigures) {
  auto a = Start("a");
  a->RunOnLoop([&] {
    NodePoolStats stats = a->pool()->Stats();
    EXPECT_EQ(stats.hits_hbm + stats.hits_dram + stats.hits_remote + stats.misses, 0u);
    EXPECT_EQ(stats.pulled_bytes, 0u);
    EXPECT_EQ(stats.pull_bytes_per_us, 0);
    EXPECT_EQ(stats.hbm_free, stats.hbm_pages);
    EXPECT_EQ(stats.hbm_held + stats.hbm_reserved, 0);
  });
}

TEST_F(PoolTest, PublishedOnOneNodePulledByAnother) {
  auto a = Start("a");
  auto b = Start("b");
  EXPECT_TRUE(a->Ready().ok());
  Publish(*a, 7);
  ASSERT_TRUE(EventuallyListed(7, 2)) << "arena and DRAM of a";
  absl::StatusOr<BlockOrigin> origin = Pull(*b, 7, SourcesOf(7));
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_EQ(*origin, BlockOrigin::kRemote);
  EXPECT_TRUE(EventuallyListed(7, 4)) << "and of b";
  a.reset();
  EXPECT_TRUE(EventuallyListed(7, 2));
  b.reset();
  EXPECT_TRUE(EventuallyListed(7, 0));
  RunOnLoop(loop_, [this] {
    EXPECT_EQ(events_, (std::vector<std::string>{"+a", "+b", "-a", "-b"}));
  });
  EXPECT_TRUE(Eventually(loop_, [this] { return subscriber_->index().block_count() == 0u; }))
      << "the index is swept in parts";
}

TEST_F(PoolTest, SurvivesTheDirectory) {
  auto a = Start("a");
  Publish(*a, 1);
  ASSERT_TRUE(EventuallyListed(1, 2));
  directory_.reset();
  ASSERT_TRUE(Eventually(loop_, [this] { return !subscriber_->current(); }));
  Publish(*a, 2);
  EXPECT_EQ(SourcesOf(1).size(), 2u) << "the last state stays in use";
  directory_ = std::make_unique<DirectoryProcess>(address_);
  EXPECT_TRUE(EventuallyListed(2, 2)) << "the node's snapshot has come";
  EXPECT_TRUE(EventuallyListed(1, 2));
}

TEST_F(PoolTest, OtherModelsAreRefused) {
  auto a = Start("a", 1);
  auto b = Start("b", 2);
  Publish(*a, 1);
  ASSERT_TRUE(EventuallyListed(1, 2));
  absl::Status status = Pull(*b, 1, SourcesOf(1)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_NE(Message(status).find("model-1"), std::string::npos) << status;
  EXPECT_NE(Message(status).find("model-2"), std::string::npos) << status;
}

TEST_F(PoolTest, AnEarlierLifeIsNotReadFrom) {
  auto a = Start("a");
  auto b = Start("b");
  Publish(*a, 1);
  ASSERT_TRUE(EventuallyListed(1, 2));
  std::vector<BlockSource> sources = SourcesOf(1);
  for (BlockSource& source : sources) source.incarnation = Incarnation(12345);
  absl::Status status = Pull(*b, 1, std::move(sources)).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(PoolTest, WhatTheStoreTookOverOutlivesItsNode) {
  auto store = StartStore(16);
  EXPECT_EQ(registry_.Expose().find("tarn_kv_pages"), std::string::npos) << "no node, no slab";
  NodeProcess a(address_);
  for (TokenId token = 1; token <= kOwnBlocks; ++token) ASSERT_TRUE(EventuallyAt("store", token));
  a.Kill();
  auto b = Start("b");
  for (TokenId token = 1; token <= kOwnBlocks; ++token) {
    ASSERT_TRUE(EventuallyAt("store", token, /*alone=*/true)) << "a has left without a word";
    absl::StatusOr<BlockOrigin> origin = Pull(*b, token, SourcesOf(token));
    ASSERT_TRUE(origin.ok()) << origin.status();
    EXPECT_EQ(*origin, BlockOrigin::kRemote);
  }
  ExpectStoreHoldsNothing();
}

TEST_F(PoolTest, AFullStoreDropsTheLeastRecentlyUsed) {
  auto store = StartStore(3);
  auto a = Start("a");
  for (TokenId token = 1; token <= 6; ++token) {
    Publish(*a, token);
    ASSERT_TRUE(EventuallyAt("store", token)) << token;
  }
  EXPECT_TRUE(Eventually(loop_, [this] {
    const BlockIndex& index = subscriber_->index();
    for (TokenId token = 1; token <= 6; ++token) {
      if (index.HoldersOf(Key(token)) != (token <= 3 ? 1 : 2)) return false;
    }
    return index.BlocksOf(NodeId("store")) == 3;
  }));
  EXPECT_TRUE(EventuallyShows("tarn_kv_evictions_total{tier=\"dram\",reason=\"room\"} 3\n"));
  ExpectStoreHoldsNothing();
}

TEST_F(PoolTest, TheStoreKeepsTheFirstModelOnly) {
  auto store = StartStore(16);
  auto a = Start("a", 1);
  Publish(*a, 1);
  ASSERT_TRUE(EventuallyAt("store", 1));
  auto b = Start("b", 2);
  Publish(*b, 11);
  EXPECT_TRUE(EventuallyShows("tarn_kv_peer_failures_total 1\n")) << "the handshake is refused";
  Publish(*a, 2);
  ASSERT_TRUE(EventuallyAt("store", 2));
  for (const BlockSource& source : SourcesOf(11)) EXPECT_EQ(source.node, NodeId("b"));
  ExpectStoreHoldsNothing();
}

TEST_F(PoolTest, ADrainedNodeServesPullsToTheEnd) {
  auto a = Start("a");
  auto b = Start("b");
  Publish(*a, 1);
  ASSERT_TRUE(EventuallyListed(1, 2));
  const std::vector<BlockSource> sources = SourcesOf(1);
  a->Drain();
  EXPECT_FALSE(a->Ready().ok());
  ASSERT_TRUE(
      Eventually(loop_, [this] { return subscriber_->nodes().at(NodeId("a")).load.draining(); }));
  EXPECT_FALSE(SourcesOf(1).empty()) << "it stays listed, for those who pull";
  absl::StatusOr<BlockOrigin> origin = Pull(*b, 1, sources);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_EQ(*origin, BlockOrigin::kRemote);
}

TEST_F(PoolTest, AStoreThatLeavesHandsOverWhatOnlyItHas) {
  constexpr TokenId kBlocks = 12;
  auto store = StartStore(16);
  {
    auto a = Start("a");
    for (TokenId token = 1; token <= kBlocks; ++token) {
      Publish(*a, token);
      ASSERT_TRUE(EventuallyAt("store", token));
    }
    metrics::Registry second;
    auto other = StartStore("other", 32, &second);
    ASSERT_TRUE(Eventually(loop_, [this] {
      return subscriber_->nodes().contains(NodeId("other"));
    })) << "all others know it as well, but for a moment";
    a.reset();
    ASSERT_TRUE(Eventually(loop_, [this] { return !subscriber_->nodes().contains(NodeId("a")); }));
    store->Drain(absl::Seconds(30));
    for (TokenId token = 1; token <= kBlocks; ++token) {
      ASSERT_TRUE(EventuallyAt("other", token)) << token;
    }
    // How many are handed over is open: what the other looks at after a has left it takes by
    // itself.
    EXPECT_TRUE(EventuallyShows("tarn_kv_store_left_behind_blocks_total 0\n"));
    store.reset();
    auto b = Start("b");
    for (TokenId token = 1; token <= kBlocks; ++token) {
      ASSERT_TRUE(EventuallyAt("other", token, /*alone=*/true));
      absl::StatusOr<BlockOrigin> origin = Pull(*b, token, SourcesOf(token));
      ASSERT_TRUE(origin.ok()) << origin.status();
    }
    // The last one has nobody to hand over to.
    const absl::Time start = loop_.Now();
    other->Drain(absl::Seconds(30));
    EXPECT_LT(loop_.Now() - start, absl::Seconds(20));
    EXPECT_NE(second.Expose().find("tarn_kv_store_handed_over_blocks_total 0\n"),
              std::string::npos);
    other.reset();
  }
}

// Users read these names.
std::set<std::string> MetricsIn(const std::string& text) {
  std::set<std::string> names;
  std::regex name("tarn_kv_[a-z_]+");
  for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it) {
    names.insert(it->str());
  }
  return names;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST_F(PoolTest, TheReadmesNameTheMetrics) {
  auto store = StartStore(4);
  auto a = Start("a");
  std::set<std::string> names = MetricsIn(ReadFile("kvstore/client/README.md"));
  EXPECT_EQ(names, MetricsIn(a->registry().Expose()));
  names.merge(MetricsIn(ReadFile("kvstore/server/README.md")));
  ASSERT_TRUE(EventuallyShows("tarn_kv_store_handed_over_blocks_total 0\n"));
  EXPECT_EQ(names, MetricsIn(registry_.Expose()));
}

int Main(int argc, char** argv) {
  std::string flag = kNodeFlag;
  if (argc == 2 && std::string(argv[1]).rfind(flag, 0) == 0) {
    return RunNode(std::string(argv[1]).substr(flag.size()));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace tarn::kvstore

int main(int argc, char** argv) { return tarn::kvstore::Main(argc, argv); }
