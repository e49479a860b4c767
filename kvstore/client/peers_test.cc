#include "kvstore/client/peers.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "kvstore/client/pool_service.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);

// A transport to which the peers in `silent` do not answer, until Release.
class SilentPeersTransport : public LoopbackTransport {
 public:
  using LoopbackTransport::LoopbackTransport;

  void Silence(const std::string& worker) { silent_ = worker; }
  void Release() { released_.set_value(); }
  // When a connect to a silent peer has begun.
  std::future<void> began() { return began_.get_future(); }
  int disconnects() const { return disconnects_; }

  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override {
    if (peer.worker == silent_) {
      began_.set_value();
      released_.get_future().get();
    }
    return LoopbackTransport::Connect(peer);
  }
  void Disconnect(PeerId peer) override {
    ++disconnects_;
    LoopbackTransport::Disconnect(peer);
  }

 private:
  std::string silent_;
  std::promise<void> began_;
  std::promise<void> released_;
  int disconnects_ = 0;  // on the loop
};

v1::NodeInfo InfoOf(const std::string& name) {
  v1::NodeInfo info;
  info.set_node_id(name);
  info.set_incarnation(1);
  info.mutable_model()->set_name("model");
  *info.mutable_model()->mutable_layout() =
      ToProto(BlockLayout{.layers = 1, .kv_heads = 1, .head_dim = 16, .block_tokens = 16});
  return info;
}

// Who is asked: a transport to read from, and the handshake service. Its loop is the test's.
class Answerer {
 public:
  Answerer(const std::string& name, LoopbackFabric& fabric, EventLoop& loop,
           const std::string& listen = "127.0.0.1:0")
      : name_(name),
        transport_(fabric, loop),
        memory_(*transport_.Allocate(4096)),
        service_(&loop,
                 [this](const BlockKey& key, absl::Time, const NodePool::StageDone& done) {
                   staged_.push_back(key);
                   if (key.bytes[0] == 0) return done(absl::NotFoundError("it has gone"));
                   done(NodePool::StagedBlock{Tier::kDram, {3, key.bytes[0] * 4096u, 7}});
                 },
                 {transport_.Address(), {memory_->descriptor()}}) {
    auto server = RpcServer::Start({.listen = listen}, {&service_});
    CHECK(server.ok()) << server.status();
    rpc_ = std::move(*server);
    RunOnLoop(loop, [this] { service_.SetSelf(InfoOf(name_)); });
  }
  std::string worker() const { return transport_.Address(); }
  // Asked for, in order; on the loop.
  const std::vector<BlockKey>& staged() const { return staged_; }
  BlockSource source() const {
    return {NodeId(name_), Incarnation(1), rpc_->address(), Tier::kHbm, {}};
  }

 private:
  const std::string name_;
  LoopbackTransport transport_;
  std::unique_ptr<RegisteredMemory> memory_;
  std::vector<BlockKey> staged_;
  PoolService service_;
  std::unique_ptr<RpcServer> rpc_;
};

class PeersTest : public testing::Test {
 protected:
  PeersTest() {
    RunOnLoop(loop_, [this] {
      peers_ = std::make_unique<Peers>(
          &loop_, std::vector<EventLoop*>{&connect_loops_[0], &connect_loops_[1]}, &transport_);
      peers_->SetSelf(InfoOf("self"));
    });
  }
  ~PeersTest() override {
    // A call that was cancelled still ends on the loop.
    EXPECT_TRUE(Eventually([this] { return peers_->Stats().handshakes == 0; }));
    for (RealEventLoop& loop : connect_loops_) loop.Stop();
    RunOnLoop(loop_, [this] { peers_.reset(); });
  }

  using Outcome = std::promise<absl::StatusOr<PeerId>>;
  void Resolve(const BlockSource& source, Outcome* outcome, absl::Duration timeout = kLimit) {
    RunOnLoop(loop_, [&] {
      peers_->Resolve(source, loop_.Now() + timeout, [outcome](absl::StatusOr<PeerId> peer) {
        outcome->set_value(std::move(peer));
      });
    });
  }
  absl::StatusOr<PeerId> Resolved(const BlockSource& source) {
    Outcome outcome;
    Resolve(source, &outcome);
    return outcome.get_future().get();
  }
  PeersStats Stats() {
    PeersStats stats;
    RunOnLoop(loop_, [&] { stats = peers_->Stats(); });
    return stats;
  }
  bool Eventually(const std::function<bool()>& holds) { return WaitOnLoop(loop_, kLimit, holds); }

  RealEventLoop loop_{"peers"};
  RealEventLoop connect_loops_[2] = {RealEventLoop("connect-0"), RealEventLoop("connect-1")};
  LoopbackFabric fabric_;
  SilentPeersTransport transport_{fabric_, loop_};
  std::unique_ptr<Peers> peers_;  // on loop_
};

TEST_F(PeersTest, OneHandshakeForEachLife) {
  Answerer a("a", fabric_, loop_);
  absl::StatusOr<PeerId> first = Resolved(a.source()), second = Resolved(a.source());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(Stats().connected, 1u);
  BlockSource earlier = a.source();
  earlier.incarnation = Incarnation(7);
  EXPECT_TRUE(absl::IsUnavailable(Resolved(earlier).status()));
}

TEST_F(PeersTest, AFailureIsRememberedForAWhile) {
  auto a = std::make_unique<Answerer>("a", fabric_, loop_);
  BlockSource source = a->source();
  a.reset();
  Outcome first, second;
  RunOnLoop(loop_, [&] {
    // The second one asks the moment the first is told.
    peers_->Resolve(source, loop_.Now() + kLimit, [&](absl::StatusOr<PeerId> peer) {
      first.set_value(std::move(peer));
      peers_->Resolve(source, loop_.Now() + kLimit,
                      [&](absl::StatusOr<PeerId> again) { second.set_value(std::move(again)); });
    });
  });
  EXPECT_TRUE(absl::IsUnavailable(first.get_future().get().status()));
  EXPECT_TRUE(absl::IsUnavailable(second.get_future().get().status()));
  EXPECT_EQ(Stats().failures, 1u) << "one handshake";
  EXPECT_EQ(Stats().skips, 1u);

  a = std::make_unique<Answerer>("a", fabric_, loop_, source.rpc_address);
  EXPECT_TRUE(Eventually([&] {
    peers_->Resolve(source, loop_.Now() + kLimit, [](const absl::StatusOr<PeerId>&) {});
    return peers_->Stats().connected == 1;
  })) << "and tried again after that";
}

TEST_F(PeersTest, ASilentPeerDelaysNobodyElse) {
  Answerer silent("silent", fabric_, loop_);
  Answerer good("good", fabric_, loop_), better("better", fabric_, loop_);
  transport_.Silence(silent.worker());
  std::future<void> began = transport_.began();
  Outcome stuck;
  Resolve(silent.source(), &stuck);
  began.get();
  EXPECT_TRUE(Resolved(good.source()).ok());
  EXPECT_TRUE(Resolved(better.source()).ok());
  transport_.Release();
  EXPECT_TRUE(stuck.get_future().get().ok());
}

TEST_F(PeersTest, ASilentPeerIsGivenUpAtTheDeadline) {
  Answerer silent("silent", fabric_, loop_);
  transport_.Silence(silent.worker());
  std::future<void> began = transport_.began();
  Outcome stuck;
  Resolve(silent.source(), &stuck, absl::Seconds(2));
  absl::StatusOr<PeerId> outcome = stuck.get_future().get();
  EXPECT_TRUE(absl::IsUnavailable(outcome.status())) << outcome.status();
  EXPECT_EQ(Stats().failures, 1u);
  // The connect had begun within the 2 s, or it never will.
  transport_.Release();
  if (began.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    EXPECT_TRUE(Eventually([this] { return transport_.disconnects() == 1; }))
        << "what comes late is not kept";
  }
  EXPECT_EQ(Stats().connected, 0u);
}

TEST_F(PeersTest, BlocksAreStagedByTheirOwnerAndEachHasItsAnswer) {
  Answerer a("a", fabric_, loop_);
  constexpr int kBlocks = kMaxStageKeys + 10;  // more than one call takes
  std::vector<absl::StatusOr<BlockAddress>> answers(kBlocks, absl::UnknownError("none"));
  std::promise<void> all;
  int left = kBlocks;
  RunOnLoop(loop_, [&] {
    for (int i = 0; i < kBlocks; ++i) {
      BlockKey key;
      key.bytes[0] = static_cast<uint8_t>(i);
      peers_->Stage(a.source(), key, loop_.Now() + kLimit,
                    [&, i](absl::StatusOr<BlockAddress> answer) {
                      answers[i] = std::move(answer);
                      if (--left == 0) all.set_value();
                    });
    }
  });
  all.get_future().get();
  for (int i = 0; i < kBlocks; ++i) {
    SCOPED_TRACE(i);
    if (i % 256 == 0) {
      EXPECT_TRUE(absl::IsNotFound(answers[i].status())) << answers[i].status();
    } else {
      ASSERT_TRUE(answers[i].ok()) << answers[i].status();
      EXPECT_EQ(*answers[i], (BlockAddress{3, i % 256 * 4096u, 7}));
    }
  }
  RunOnLoop(loop_, [&] { EXPECT_EQ(a.staged().size(), static_cast<size_t>(kBlocks)); });
}

TEST_F(PeersTest, ANodeThatIsGoneStagesNothing) {
  auto a = std::make_unique<Answerer>("a", fabric_, loop_);
  BlockSource source = a->source();
  a.reset();
  std::promise<absl::StatusOr<BlockAddress>> answer;
  RunOnLoop(loop_, [&] {
    peers_->Stage(source, BlockKey{}, loop_.Now() + absl::Milliseconds(500),
                  [&](absl::StatusOr<BlockAddress> at) { answer.set_value(std::move(at)); });
  });
  absl::Status status = answer.get_future().get().status();
  EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) << status;
}

}  // namespace
}  // namespace tarn::kvstore
