// Publishers, directories and subscribers over gRPC: what is lost, late or in the wrong order.

#include <glog/logging.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/memory/block_header.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/server_stream.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "kvstore/client/fake_peers.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/directory/inventory_wire.h"
#include "kvstore/directory/publisher.h"
#include "kvstore/directory/service.h"
#include "kvstore/directory/subscriber.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);
const BlockLayout kLayout{
    .layers = 1, .kv_heads = 1, .head_dim = 16, .block_tokens = 16, .alignment = 64};

BlockKey Key(int number) {
  TokenId token = number;
  return ChildKey(BlockKey{}, {&token, 1});
}

// Asks on the loop until it holds; false after kLimit.
bool Eventually(EventLoop& loop, const std::function<bool()>& holds) {
  return WaitOnLoop(loop, kLimit, holds);
}

// Known nodes come back, however slow the machine is: nothing here depends on that time.
constexpr DirectoryOptions kPatient{.settle_time = kLimit, .max_settle_time = kLimit};

class Directory {
 public:
  explicit Directory(const DirectoryOptions& options = kPatient,
                     const std::string& listen = "127.0.0.1:0")
      : service_(std::make_unique<DirectoryService>(&loop_, options)) {
    auto server = RpcServer::Start({.listen = listen}, {service_.get()});
    CHECK(server.ok()) << server.status();
    rpc_ = std::move(*server);
  }
  ~Directory() {
    rpc_->Shutdown(absl::ZeroDuration());
    RunOnLoop(loop_, [this] { service_.reset(); });
  }
  std::string address() const { return rpc_->address(); }
  bool Eventually(const std::function<bool(const DirectoryStats&)>& holds) {
    return kvstore::Eventually(loop_, [&] { return holds(service_->Stats()); });
  }
  DirectoryStats Stats() {
    DirectoryStats stats;
    RunOnLoop(loop_, [&] { stats = service_->Stats(); });
    return stats;
  }

 private:
  RealEventLoop loop_{"directory"};
  std::unique_ptr<DirectoryService> service_;
  std::unique_ptr<RpcServer> rpc_;
};

v1::NodeInfo InfoOf(const std::string& name, uint64_t incarnation = 1) {
  v1::NodeInfo info;
  info.set_node_id(name);
  info.set_incarnation(incarnation);
  info.set_rpc_address(name);
  return info;
}

// A pool and its publisher on a loop of their own.
class Node {
 public:
  Node(const std::string& name, std::vector<std::string> directories, int pages = 64) {
    RunOnLoop(loop_, [&] {
      auto pool =
          NodePool::Create({.layout = kLayout, .hbm_pages = pages}, &loop_, &transport_, &peers_);
      CHECK(pool.ok()) << pool.status();
      pool_ = std::move(*pool);
      InventoryPublisherOptions options;
      options.directories = std::move(directories);
      options.info = InfoOf(name);
      options.max_backoff = absl::Milliseconds(100);
      publisher_ = InventoryPublisher::Start(
          std::move(options), &loop_,
          {.listen =
               [this](InventoryPublisher::Listener listener) {
                 pool_->ListenToInventory(std::move(listener));
               },
           .read =
               [this](uint64_t cursor, int max, std::vector<InventoryChange>* blocks) {
                 // Several parts, even of small pools.
                 return pool_->ReadInventory(cursor, std::min(max, 7), blocks);
               }},
          [] { return v1::NodeLoad(); });
    });
  }
  // Without goodbye: the streams break.
  ~Node() {
    RunOnLoop(loop_, [this] {
      publisher_.reset();
      pool_.reset();
    });
  }

  // Caches the block; beyond `pages` another one goes.
  void Publish(int number) {
    RunOnLoop(loop_, [&] {
      auto pages = pool_->Reserve(RequestId(1), 1, absl::InfiniteFuture());
      PageRef page = pool_->Allocate(*pages);
      SealBlock(kLayout, pool_->IdentityFor(page, Key(number), 16), page.bytes());
      pool_->Publish(page, Key(number), Key(number + 1'000'000), {});
    });
  }
  bool Has(int number) {
    bool has = false;
    RunOnLoop(loop_, [&] {
      BlockKey key = Key(number);
      has = pool_->MatchLocal({&key, 1}) == 1;
    });
    return has;
  }
  int synced() {
    int synced = 0;
    RunOnLoop(loop_, [&] { synced = publisher_->synced(); });
    return synced;
  }

 private:
  RealEventLoop loop_{"node"};
  LoopbackFabric fabric_;
  LoopbackTransport transport_{fabric_, loop_};
  FakeCluster cluster_;
  FakePeers peers_{&loop_, &transport_, &cluster_};
  std::unique_ptr<NodePool> pool_;
  std::unique_ptr<InventoryPublisher> publisher_;
};

// A subscriber and what it was told.
class Watcher {
 public:
  explicit Watcher(std::vector<std::string> directories) {
    RunOnLoop(loop_, [&] {
      ClusterListener listener;
      listener.on_joined = [this](const ClusterNode& n) {
        events_.push_back("+" + n.info.node_id());
      };
      listener.on_left = [this](const NodeId& n, Incarnation) {
        events_.push_back("-" + n.value());
      };
      listener.on_block = [this](const NodeId&, const InventoryChange& change) {
        told_[change.key] = change;
      };
      subscriber_ =
          DirectorySubscriber::Start({.directories = std::move(directories)}, &loop_, listener);
    });
  }
  ~Watcher() {
    RunOnLoop(loop_, [this] { subscriber_.reset(); });
  }
  bool Eventually(const std::function<bool(const DirectorySubscriber&)>& holds) {
    return kvstore::Eventually(loop_, [&] { return holds(*subscriber_); });
  }
  bool EventuallyCurrent() {
    return Eventually([](const DirectorySubscriber& s) { return s.current(); });
  }
  // Of `numbers`, the index has exactly those blocks at the node that the node has.
  bool EventuallyEquals(const std::string& name, Node& node, int numbers) {
    std::vector<bool> has;
    for (int i = 0; i < numbers; ++i) has.push_back(node.Has(i));
    return Eventually([&](const DirectorySubscriber& s) {
      size_t count = std::count(has.begin(), has.end(), true);
      if (!s.current() || s.index().BlocksOf(NodeId(name)) != count) return false;
      for (int i = 0; i < numbers; ++i) {
        std::vector<BlockSource> sources = s.index().Sources(Key(i));
        bool listed = std::any_of(sources.begin(), sources.end(), [&](const BlockSource& source) {
          return source.node.value() == name;
        });
        if (has[i] != listed) return false;
      }
      return true;
    });
  }
  std::vector<std::string> events() {
    std::vector<std::string> events;
    RunOnLoop(loop_, [&] { events = events_; });
    return events;
  }
  // What was last told of a block.
  InventoryChange told(int number) {
    InventoryChange change;
    RunOnLoop(loop_, [&] { change = told_[Key(number)]; });
    return change;
  }
  // Keeps the loop busy, so that nothing is read, while `task` runs here.
  void WhileStuck(const std::function<void()>& task) {
    std::promise<void> release;
    loop_.Post([&] { release.get_future().get(); });
    task();
    release.set_value();
  }

 private:
  RealEventLoop loop_{"watcher"};
  std::vector<std::string> events_;
  std::map<BlockKey, InventoryChange> told_;
  std::unique_ptr<DirectorySubscriber> subscriber_;
};

using Events = std::vector<std::string>;

TEST(DirectoryTest, ANodeWhoseStreamBreaksHasLeft) {
  Directory directory;
  Watcher watcher({directory.address()});
  ASSERT_TRUE(watcher.EventuallyCurrent());
  auto a = std::make_unique<Node>("a", std::vector{directory.address()});
  a->Publish(1);
  ASSERT_TRUE(watcher.EventuallyEquals("a", *a, 2));
  a.reset();
  EXPECT_TRUE(watcher.Eventually([](const DirectorySubscriber& s) {
    return s.nodes().empty() && s.index().block_count() == 0;  // swept
  }));
  EXPECT_EQ(watcher.events(), (Events{"+a", "-a"}));
  EXPECT_TRUE(directory.Eventually([](const DirectoryStats& s) { return s.nodes == 0; }));
}

TEST(DirectoryTest, OfTwoDirectoriesOneDies) {
  auto first = std::make_unique<Directory>();
  Directory second;
  std::vector<std::string> both{first->address(), second.address()};
  Node a("a", both), b("b", both);
  for (int i = 0; i < 10; ++i) (i % 2 == 0 ? a : b).Publish(i);
  Watcher watcher(both);
  ASSERT_TRUE(watcher.EventuallyEquals("a", a, 10) && watcher.EventuallyEquals("b", b, 10));
  first.reset();
  // It is heard of only through the other one.
  a.Publish(10);
  EXPECT_TRUE(watcher.EventuallyEquals("a", a, 11));
  EXPECT_TRUE(watcher.EventuallyEquals("b", b, 11));
  EXPECT_EQ(second.Stats().subscribers, 1u);
  Events events = watcher.events();
  std::sort(events.begin(), events.end());
  EXPECT_EQ(events, (Events{"+a", "+b"})) << "nobody left";
}

TEST(DirectoryTest, RestartsWhileBlocksComeAndGo) {
  auto directory = std::make_unique<Directory>();
  const std::string address = directory->address();
  Node a("a", {address}, 16);
  Watcher watcher({address});
  int published = 0;
  for (int life = 0; life < 3; ++life) {
    for (int i = 0; i < 40; ++i) a.Publish(published++);
    directory.reset();
    for (int i = 0; i < 40; ++i) a.Publish(published++);
    directory = std::make_unique<Directory>(kPatient, address);
    for (int i = 0; i < 40; ++i) a.Publish(published++);
  }
  EXPECT_TRUE(watcher.EventuallyEquals("a", a, published));
  EXPECT_EQ(a.synced(), 1);
  EXPECT_EQ(directory->Stats().index.blocks, 16u);
}

// Every directory is gone at once and comes back knowing nothing: nobody is seen to leave, and what
// was known stays known until the nodes have told it again.
TEST(DirectoryTest, AllDirectoriesRestartAtOnceWhileBlocksComeAndGo) {
  std::vector<std::unique_ptr<Directory>> directories(2);
  std::vector<std::string> addresses;
  for (auto& directory : directories) {
    directory = std::make_unique<Directory>();
    addresses.push_back(directory->address());
  }
  Node a("a", addresses, 16), b("b", addresses, 16);
  Watcher watcher(addresses);
  int published = 0;
  auto publish = [&](int count) {
    for (int i = 0; i < count; ++i) (i % 2 == 0 ? a : b).Publish(published++);
  };
  b.Publish(999'999);
  publish(40);
  // What it does not know yet it would not miss.
  ASSERT_TRUE(watcher.EventuallyEquals("a", a, published));
  ASSERT_TRUE(watcher.Eventually(
      [](const DirectorySubscriber& s) { return s.index().BlocksOf(NodeId("b")) > 0; }));
  for (int round = 0; round < 2; ++round) {
    for (auto& directory : directories) directory.reset();
    publish(20);
    for (size_t i = 0; i < directories.size(); ++i) {
      directories[i] = std::make_unique<Directory>(kPatient, addresses[i]);
    }
    publish(20);
    ASSERT_TRUE(watcher.Eventually([](const DirectorySubscriber& s) {
      // At every moment until then: both nodes, and blocks of both.
      EXPECT_EQ(s.nodes().size(), 2u);
      EXPECT_GT(s.index().BlocksOf(NodeId("a")), 0u);
      EXPECT_GT(s.index().BlocksOf(NodeId("b")), 0u);
      return s.current();
    }));
    publish(20);
  }
  EXPECT_TRUE(watcher.EventuallyEquals("a", a, published));
  EXPECT_TRUE(watcher.EventuallyEquals("b", b, published));
  Events events = watcher.events();
  std::sort(events.begin(), events.end());
  EXPECT_EQ(events, (Events{"+a", "+b"})) << "nobody left";
}

// A node that does not come back after the restart is given up in the end.
TEST(DirectoryTest, ANodeThatDiesWithItsDirectoryIsGivenUp) {
  DirectoryOptions options;
  options.settle_time = absl::Seconds(1);
  auto directory = std::make_unique<Directory>(options);
  const std::string address = directory->address();
  auto a = std::make_unique<Node>("a", std::vector{address});
  a->Publish(1);
  Watcher watcher({address});
  ASSERT_TRUE(watcher.EventuallyEquals("a", *a, 2));
  directory.reset();
  a.reset();
  directory = std::make_unique<Directory>(options, address);
  EXPECT_TRUE(watcher.Eventually(
      [](const DirectorySubscriber& s) { return s.current() && s.nodes().empty(); }));
  EXPECT_EQ(watcher.events(), (Events{"+a", "-a"}));
}

// Subscribers that come while an inventory changes, and while its snapshot is still under way.
TEST(DirectoryTest, LateSubscribersConvergeWhileBlocksComeAndGo) {
  Directory directory;
  Node a("a", {directory.address()}, 64);
  std::vector<std::unique_ptr<Watcher>> watchers;
  int published = 0;
  for (int i = 0; i < 8; ++i) {
    watchers.push_back(std::make_unique<Watcher>(std::vector{directory.address()}));
    for (int k = 0; k < 100; ++k) a.Publish(published++);
  }
  for (auto& watcher : watchers) EXPECT_TRUE(watcher->EventuallyEquals("a", a, published));
}

// A busy machine may need more than one attempt to connect.
grpc::ClientContext* WaitForReady(grpc::ClientContext& context) {
  context.set_wait_for_ready(true);
  return &context;
}

// A node's stream by hand: numbers may be left out.
class HandMadeStream {
 public:
  explicit HandMadeStream(const std::string& address, const v1::NodeInfo& info = InfoOf("a"))
      : stub_(v1::Directory::NewStub(MakeChannel(address))),
        stream_(stub_->Publish(WaitForReady(context_))) {
    v1::InventoryUpdate hello;
    *hello.mutable_hello() = info;
    CHECK(stream_->Write(hello));
  }
  ~HandMadeStream() {
    context_.TryCancel();
    stream_->Finish();
  }
  void Send(uint64_t sequence, bool snapshot, std::vector<int> keys) {
    InventoryBatch batch;
    batch.snapshot_begin = batch.snapshot_end = snapshot;
    for (int key : keys) batch.adds.push_back({.added = true, .key = Key(key)});
    Send(sequence, batch);
  }
  void Send(uint64_t sequence, const InventoryBatch& batch) {
    v1::InventoryUpdate update;
    update.set_sequence(sequence);
    SetBlocks(batch, &update);
    CHECK(stream_->Write(update));
  }
  void SendLoad() {
    v1::InventoryUpdate update;
    update.mutable_load()->set_hbm_pages(1);
    CHECK(stream_->Write(update));
  }
  v1::InventoryAck Receive() {
    v1::InventoryAck ack;
    CHECK(stream_->Read(&ack));
    return ack;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Directory::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::InventoryUpdate, v1::InventoryAck>> stream_;
};

TEST(DirectoryTest, AMissingNumberAsksForASnapshot) {
  Directory directory;
  Watcher watcher({directory.address()});
  HandMadeStream stream(directory.address());
  stream.Send(1, true, {1});
  EXPECT_EQ(stream.Receive().sequence(), 1u);
  stream.Send(2, false, {2});
  EXPECT_EQ(stream.Receive().sequence(), 2u);
  stream.Send(4, false, {4});
  v1::InventoryAck ack = stream.Receive();
  EXPECT_TRUE(ack.resend_snapshot());
  EXPECT_EQ(ack.sequence(), 2u) << "what was applied";
  stream.Send(5, false, {5});
  stream.Send(6, true, {6, 7});
  ack = stream.Receive();
  EXPECT_EQ(ack.sequence(), 6u);
  EXPECT_FALSE(ack.resend_snapshot());
  EXPECT_TRUE(watcher.Eventually([](const DirectorySubscriber& s) {
    return s.index().block_count() == 2 && s.index().HoldersOf(Key(6)) == 1 &&
           s.index().HoldersOf(Key(7)) == 1;
  }));
  EXPECT_EQ(directory.Stats().snapshots_requested, 1u);
}

TEST(DirectoryTest, TraitsReachThoseWhoAreSubscribed) {
  Directory directory;
  Watcher watcher({directory.address()});
  ASSERT_TRUE(watcher.EventuallyCurrent());
  HandMadeStream stream(directory.address());
  InventoryBatch batch{.snapshot_begin = true, .snapshot_end = true};
  batch.adds.push_back({true, Key(1), Tier::kSsd, {1, 8192, 9}, {TenantId("t"), 3, 2, 7}});
  stream.Send(1, batch);
  stream.Receive();
  ASSERT_TRUE(watcher.Eventually([](const auto& s) { return s.index().block_count() == 1; }));
  EXPECT_EQ(watcher.told(1).traits, batch.adds[0].traits);
  EXPECT_EQ(watcher.told(1).address, batch.adds[0].address);
}

TEST(DirectoryTest, WhatTheIndexHasNoRoomForIsCounted) {
  DirectoryOptions options = kPatient;
  options.index.max_bytes = size_t{4} << 20;
  Directory directory(options);
  HandMadeStream stream(directory.address());
  uint64_t sequence = 0;
  int next = 0;
  auto send = [&](int count) {
    std::vector<int> keys(static_cast<size_t>(count));
    for (int& key : keys) key = next++;
    ++sequence;
    stream.Send(sequence, sequence == 1, keys);
    stream.Receive();
  };
  for (int i = 0; i < 50; ++i) send(4000);
  DirectoryStats stats = directory.Stats();
  EXPECT_GT(stats.index.refused, 0u);
  EXPECT_EQ(stats.index.places + stats.index.refused, 200'000u);
  EXPECT_LE(stats.index.bytes, options.index.max_bytes);
}

// An inventory of a quarter of a million blocks comes in small messages, with the loop free in
// between, and with changes in between.
TEST(DirectoryTest, ALargeSnapshotComesInParts) {
  constexpr int kBlocks = 250'000;
  Directory directory;
  RealEventLoop loop("node");
  std::unique_ptr<InventoryPublisher> publisher;
  InventoryPublisher::Listener listener;
  uint64_t read = 0;
  int parts = 0, most = 0;
  auto block = [](uint64_t place) {
    BlockKey key;
    std::memcpy(key.bytes.data(), &place, sizeof(place));
    return InventoryChange{.added = true, .key = key, .tier = Tier::kSsd, .address = {0, 4096, 1}};
  };
  RunOnLoop(loop, [&] {
    InventoryPublisherOptions options;
    options.directories = {directory.address()};
    options.info = InfoOf("a");
    publisher = InventoryPublisher::Start(
        options, &loop,
        {.listen = [&](InventoryPublisher::Listener to) { listener = std::move(to); },
         .read = [&](uint64_t cursor, int max, std::vector<InventoryChange>* blocks) -> uint64_t {
           read = std::min<uint64_t>(kBlocks, cursor + static_cast<uint64_t>(max));
           for (; cursor < read; ++cursor) {
             // Odd ones have gone when the first part has been read.
             if (parts == 0 || cursor % 2 == 0) blocks->push_back(block(cursor));
           }
           most = std::max(most, static_cast<int>(blocks->size()));
           if (parts++ == 0) {
             for (uint64_t odd = 1; odd < read; odd += 2) {
               InventoryChange gone = block(odd);
               gone.added = false;
               listener(gone);
             }
           }
           return read == kBlocks ? 0 : read;
         }},
        [] { return v1::NodeLoad(); });
  });
  EXPECT_TRUE(
      directory.Eventually([](const DirectoryStats& s) { return s.index.places == kBlocks / 2; }));
  Watcher watcher({directory.address()});
  EXPECT_TRUE(watcher.Eventually([](const DirectorySubscriber& s) {
    return s.current() && s.index().Stats().places == kBlocks / 2;
  }));
  EXPECT_LE(most, 4096);
  EXPECT_GE(parts, kBlocks / 4096);
  RunOnLoop(loop, [&] { publisher.reset(); });
}

// A directory that loses every `lose`-th message with blocks on its way in, until it has seen
// `max_gaps` gaps.
class LossyDirectory : public v1::Directory::CallbackService {
 public:
  LossyDirectory(int lose, int max_gaps) : lose_(lose), max_gaps_(max_gaps) {
    auto server = RpcServer::Start({}, {this});
    CHECK(server.ok()) << server.status();
    rpc_ = std::move(*server);
  }
  ~LossyDirectory() override {
    rpc_->Shutdown(absl::ZeroDuration());
    RunOnLoop(loop_, [this] { stream_.reset(); });
  }
  std::string address() const { return rpc_->address(); }
  EventLoop& loop() { return loop_; }

  grpc::ServerBidiReactor<v1::InventoryUpdate, v1::InventoryAck>* Publish(
      grpc::CallbackServerContext* context) override {
    return AcceptStream<v1::InventoryUpdate, v1::InventoryAck>(
        context, loop_, {}, [this](std::shared_ptr<Stream<v1::InventoryAck>> stream) {
          stream_ = std::move(stream);
          return StreamHandler<v1::InventoryUpdate>{
              .on_message = [this](const v1::InventoryUpdate& update) { OnUpdate(update); }};
        });
  }

  // Loop-only.
  int gaps() const { return gaps_; }
  const InventoryState& state() const { return state_; }
  const std::set<BlockKey>& blocks() const { return blocks_; }

 private:
  void OnUpdate(const v1::InventoryUpdate& update) {
    if (!CarriesBlocks(update)) return;
    if (++messages_ % lose_ == 0 && gaps_ < max_gaps_) return;
    InventoryBatch batch = *BlocksOf(update);
    batch.sequence = update.sequence();
    InventoryState::Outcome outcome = state_.Apply(batch);
    bool gap = outcome == InventoryState::Outcome::kNeedSnapshot;
    if (outcome == InventoryState::Outcome::kApplied) {
      if (batch.snapshot_begin) blocks_.clear();
      for (const InventoryChange& change : batch.removes) blocks_.erase(change.key);
      for (const InventoryChange& change : batch.adds) blocks_.insert(change.key);
    }
    gaps_ += gap ? 1 : 0;
    v1::InventoryAck ack;
    ack.set_sequence(state_.sequence());
    ack.set_resend_snapshot(gap);
    stream_->Send(std::move(ack));
  }

  const int lose_;
  const int max_gaps_;
  RealEventLoop loop_{"lossy"};
  // On loop_.
  std::shared_ptr<Stream<v1::InventoryAck>> stream_;
  InventoryState state_;
  std::set<BlockKey> blocks_;
  int messages_ = 0;
  int gaps_ = 0;

  std::unique_ptr<RpcServer> rpc_;
};

TEST(DirectoryTest, APublisherSendsItsSnapshotAgainWhenAsked) {
  LossyDirectory directory(3, 3);
  Node a("a", {directory.address()}, 8);
  // A lost message shows at the next one.
  int published = 0;
  EXPECT_TRUE(Eventually(directory.loop(), [&] {
    a.Publish(published++);
    return directory.gaps() == 3;
  }));
  std::set<BlockKey> expected;
  for (int i = 0; i < published; ++i) {
    if (a.Has(i)) expected.insert(Key(i));
  }
  EXPECT_TRUE(Eventually(directory.loop(), [&] {
    return directory.state().complete() && directory.blocks() == expected;
  }));
}

// A few big messages in place of many: what a subscriber may leave untaken.
constexpr size_t kBig = 1 << 20;
constexpr DirectoryOptions kSmallBuffers{.max_subscriber_bytes = 4 * kBig};

// Nodes with much to say come and go, until all buffers between the directory and a subscriber that
// does not read are full, and it is cut off.
void CutSubscriberOff(Directory& directory) {
  v1::NodeInfo info = InfoOf("big");
  info.set_http_address(std::string(kBig, 'x'));
  size_t others = directory.Stats().nodes;
  for (int i = 0; i < 200 && directory.Stats().subscribers > 0; ++i) {
    {
      HandMadeStream big(directory.address(), info);
      ASSERT_TRUE(directory.Eventually([=](const auto& s) { return s.nodes == others + 1; }));
    }
    ASSERT_TRUE(directory.Eventually([=](const auto& s) { return s.nodes == others; }));
  }
  EXPECT_TRUE(directory.Eventually([](const auto& s) { return s.subscribers == 0; }));
}

TEST(DirectoryTest, ASubscriberThatDoesNotReadIsCutOff) {
  Directory directory(kSmallBuffers);
  HandMadeStream stream(directory.address());
  stream.Send(1, true, {1, 2});
  stream.Receive();
  grpc::ClientContext context;
  auto stub = v1::Directory::NewStub(MakeChannel(directory.address()));
  auto slow = stub->Subscribe(WaitForReady(context), v1::SubscribeRequest());
  ASSERT_TRUE(directory.Eventually([](const auto& s) { return s.subscribers == 1; }));
  CutSubscriberOff(directory);
  v1::DirectoryUpdate update;
  while (slow->Read(&update)) continue;
  grpc::Status status = slow->Finish();
  EXPECT_TRUE(status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ||
              status.error_code() == grpc::StatusCode::CANCELLED)
      << status.error_code() << " " << status.error_message();
  Watcher next({directory.address()});
  EXPECT_TRUE(next.Eventually([](const auto& s) { return s.index().block_count() == 2; }))
      << "a new one gets everything";
}

TEST(DirectoryTest, ASlowSubscriberStartsOverAndConverges) {
  Directory directory(kSmallBuffers);
  Watcher watcher({directory.address()});
  HandMadeStream stream(directory.address());
  stream.Send(1, true, {1, 2});
  stream.Receive();
  ASSERT_TRUE(watcher.Eventually([](const auto& s) { return s.index().block_count() == 2; }));
  watcher.WhileStuck([&] {
    // So many wait on the watcher's loop before it stops reading.
    for (size_t i = 0; i < StreamOptions().max_unhandled_messages; ++i) stream.SendLoad();
    stream.Send(2, false, {3});
    stream.Receive();
    CutSubscriberOff(directory);
    stream.Send(3, false, {4});
    stream.Receive();
  });
  EXPECT_TRUE(watcher.Eventually([](const auto& s) {
    return s.current() && s.index().block_count() == 4 && s.index().HoldersOf(Key(4)) == 1;
  }));
  Events events = watcher.events();
  EXPECT_EQ(std::count(events.begin(), events.end(), "+a"), 1);
  EXPECT_EQ(std::count(events.begin(), events.end(), "-a"), 0) << "the cut is not seen";
}

}  // namespace
}  // namespace tarn::kvstore
