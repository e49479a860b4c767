#include "router/session/cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "router/session/fake_nodes.h"

namespace tarn::router {
namespace {

// A client that checks each token against the only right one.
class Client : public GenerationSink {
 public:
  explicit Client(std::vector<TokenId> prompt) : tokens_(std::move(prompt)) {}

  void OnTokens(std::span<const engine::SampledToken> tokens) override {
    EXPECT_TRUE(generation != nullptr && endings() == 0) << "called after the end";
    for (const engine::SampledToken& token : tokens) {
      EXPECT_EQ(token.token, FakeNodes::NextToken(tokens_));
      tokens_.push_back(token.token);
      ++received;
    }
    if (on_tokens) on_tokens();
  }
  void OnFinished(FinishReason, const GenerationReport& r) override {
    EXPECT_TRUE(generation != nullptr && endings() == 0) << "called after the end";
    ++finished;
    report = r;
  }
  void OnFailed(const absl::Status& why, absl::Duration retry) override {
    EXPECT_TRUE(generation != nullptr && endings() == 0) << "called after the end";
    ++failed;
    status = why;
    retry_after = retry;
  }
  int endings() const { return finished + failed; }

  std::unique_ptr<Generation> generation;
  std::function<void()> on_tokens;
  int received = 0, finished = 0, failed = 0;
  GenerationReport report;
  absl::Status status;
  absl::Duration retry_after;

 private:
  std::vector<TokenId> tokens_;
};

class ClusterTest : public ::testing::Test {
 protected:
  void Build(FakeNodes::Options nodes = {}, ClusterOptions options = {}) {
    nodes_ = std::make_unique<FakeNodes>(&loop_, nodes);
    cluster_ = std::make_unique<Cluster>(
        options,
        ClusterParts{.loop = &loop_,
                     .streams = nodes_.get(),
                     .metrics = &metrics_,
                     .index = [this]() -> const kvstore::BlockIndex& { return index_; }},
        Random(42));
  }
  void BuildTwoOfEach(FakeNodes::Options nodes = {}, ClusterOptions options = {}) {
    Build(nodes, options);
    for (const char* id : {"p0", "p1"}) cluster_->Joined(nodes_->Add(id, v1::ROLE_PREFILL));
    for (const char* id : {"d0", "d1"}) cluster_->Joined(nodes_->Add(id, v1::ROLE_DECODE));
    loop_.RunFor(absl::Seconds(1));
  }
  std::unique_ptr<Client> Ask(int prompt_length, int max_new_tokens,
                              absl::Duration time_out = absl::Seconds(60)) {
    GenerationRequest request;
    for (int i = 0; i < prompt_length; ++i) request.prompt.push_back(i + ++asked_);
    request.max_new_tokens = max_new_tokens;
    request.received = loop_.Now();
    request.deadline = loop_.Now() + time_out;
    auto client = std::make_unique<Client>(request.prompt);
    client->generation = cluster_->Start(std::move(request), client.get());
    EXPECT_EQ(client->endings(), 0) << "called back within Start";
    return client;
  }
  // What the decode nodes say of their seats.
  void ReportSeats(uint32_t seats) {
    for (const char* id : {"d0", "d1"}) {
      v1::NodeLoad load;
      load.set_hbm_pages(100'000);
      load.set_max_running(seats);
      cluster_->Reported(NodeId(id), load);
    }
  }
  void ReportDraining(const std::string& node, bool draining) {
    v1::NodeLoad load;
    load.set_draining(draining);
    cluster_->Reported(NodeId(node), load);
  }
  void Finish(const Client& client) {
    loop_.RunUntil([&] { return client.endings() > 0; }, absl::Minutes(2));
  }
  // After everything has ended nothing is left anywhere.
  void ExpectNothingLeft() {
    loop_.RunFor(absl::Seconds(1));
    EXPECT_EQ(cluster_->in_flight(), 0u);
    EXPECT_EQ(nodes_->seats(), 0u);
    EXPECT_EQ(nodes_->pins(), 0u);
    EXPECT_THAT(nodes_->violations(), ::testing::IsEmpty());
    for (const auto& [id, node] : cluster_->view().nodes()) {
      EXPECT_EQ(node.running(), 0) << id;
      EXPECT_EQ(node.pages_taken(), 0) << id;
      EXPECT_EQ(node.waiting_us(loop_.Now(), {.us_per_token = 1}), 0) << id;
    }
    EXPECT_EQ(metrics_.requests_in_flight.Value(), 0);
  }

  SimEventLoop loop_;
  metrics::Registry registry_;
  RouterMetrics metrics_{registry_};
  kvstore::BlockIndex index_;
  std::unique_ptr<FakeNodes> nodes_;
  std::unique_ptr<Cluster> cluster_;
  int asked_ = 0;
};

TEST_F(ClusterTest, AnswersAndReports) {
  BuildTwoOfEach();
  ASSERT_TRUE(cluster_->Ready().ok());
  const auto client = Ask(100, 10);
  Finish(*client);
  EXPECT_EQ(client->finished, 1);
  EXPECT_EQ(client->received, 10);
  const GenerationReport& report = client->report;
  EXPECT_EQ(report.prompt_tokens, 100);
  EXPECT_EQ(report.computed, 100);
  EXPECT_EQ(report.attempts, 1);
  EXPECT_EQ(report.prefill_node, "p0");
  EXPECT_EQ(report.decode_node, "d0");
  EXPECT_GE(report.time_to_first_token, absl::Milliseconds(1));  // 100 tokens at 10 us
  EXPECT_GT(report.route, absl::ZeroDuration());
  EXPECT_GT(report.handover, absl::ZeroDuration());
  EXPECT_GE(report.decode, absl::Milliseconds(8));
  EXPECT_GE(report.total, report.time_to_first_token + report.decode);
  EXPECT_EQ(metrics_.requests_finished.Value(), 1u);
  EXPECT_EQ(metrics_.generation_tokens.Value(), 10u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, WaitsForASeatInTheRouter) {
  BuildTwoOfEach({.seats = 2});
  ReportSeats(2);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(Ask(50, 20));
  loop_.RunFor(absl::Milliseconds(3));
  EXPECT_GT(metrics_.requests_queued.Value(), 0);
  for (const auto& client : clients) Finish(*client);
  for (const auto& client : clients) EXPECT_EQ(client->finished, 1) << client->status;
  EXPECT_EQ(metrics_.requests_queued.Value(), 0);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, WhoeverWaitsMayLeaveOrRunOutOfTime) {
  BuildTwoOfEach({.seats = 1});
  ReportSeats(1);
  std::vector<std::unique_ptr<Client>> running;
  for (int i = 0; i < 2; ++i) running.push_back(Ask(50, 1000));
  loop_.RunFor(absl::Milliseconds(50));
  const auto late = Ask(50, 10, absl::Milliseconds(20));
  auto leaves = Ask(50, 10);
  const auto stays = Ask(50, 10);
  loop_.RunFor(absl::Milliseconds(10));
  leaves.reset();
  Finish(*late);
  EXPECT_TRUE(absl::IsDeadlineExceeded(late->status) || absl::IsResourceExhausted(late->status))
      << late->status;
  Finish(*stays);
  EXPECT_EQ(stays->finished, 1) << stays->status;
  for (const auto& client : running) Finish(*client);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, AFullQueueRefuses) {
  ClusterOptions options;
  options.queue.max_requests = 1;
  BuildTwoOfEach({.seats = 1}, options);
  ReportSeats(1);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(Ask(50, 100));
  loop_.RunFor(absl::Milliseconds(5));
  const auto refused = Ask(50, 10);
  for (const auto& client : clients) Finish(*client);
  Finish(*refused);
  EXPECT_EQ(std::count_if(clients.begin(), clients.end(),
                          [](const auto& client) { return client->failed > 0; }) +
                refused->failed,
            2);
  EXPECT_EQ(metrics_.refusals.With({"queue_full"}).Value(), 2u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, OneTokenNeedsNoDecode) {
  BuildTwoOfEach();
  const auto client = Ask(5, 1);
  Finish(*client);
  EXPECT_EQ(client->received, 1);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, PlansWhatTheIndexKnows) {
  BuildTwoOfEach();
  // A store holds the first two blocks of the prompt that Ask makes next.
  std::vector<TokenId> prompt;
  for (int i = 0; i < 40; ++i) prompt.push_back(i + i + 1);
  const auto keys = ChainKeys(cluster_->model()->RootFor(""), prompt, 16);
  index_.Join({.node = NodeId("s0"), .incarnation = Incarnation(3), .rpc_address = "s0:1"});
  for (const BlockKey& key : keys) {
    index_.Apply(NodeId("s0"),
                 {.key = key, .tier = kvstore::Tier::kDram, .address = {.offset = 64}});
  }
  const auto client = Ask(40, 2);
  Finish(*client);
  ASSERT_EQ(nodes_->prefills().size(), 1u);
  ASSERT_EQ(nodes_->prefills()[0].plan_size(), 2);
  EXPECT_EQ(nodes_->prefills()[0].plan(1).locations(0).rpc_address(), "s0:1");
  ExpectNothingLeft();
}

TEST_F(ClusterTest, GoesOnWhenThePrefillNodeDies) {
  BuildTwoOfEach({.prefill_per_token = absl::Milliseconds(1)});
  const auto client = Ask(100, 10);
  loop_.RunFor(absl::Milliseconds(50));
  nodes_->Kill("p0");
  Finish(*client);
  EXPECT_EQ(client->received, 10);
  EXPECT_EQ(client->report.prefill_node, "p1");
  EXPECT_EQ(client->report.attempts, 2);
  EXPECT_EQ(metrics_.retries_lost.Value(), 1u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, GoesOnWhenTheDecodeNodeDies) {
  BuildTwoOfEach();
  const auto client = Ask(100, 100);
  loop_.RunUntil([&] { return client->received == 40; });
  nodes_->Kill("d0");
  Finish(*client);
  EXPECT_EQ(client->received, 100);
  EXPECT_EQ(client->report.decode_node, "d1");
  EXPECT_EQ(client->report.prompt_tokens, 100);
  EXPECT_EQ(client->report.computed, 100);
  EXPECT_EQ(nodes_->prefills().back().tokens_size(), 140);
  EXPECT_EQ(nodes_->prefills().back().prompt_length(), 100u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, ALeavingNodeIsLeftAsOftenAsItTakes) {
  BuildTwoOfEach({}, {.requests = {.limits = {.max_attempts = 1}}});
  const auto client = Ask(100, 500);
  for (int i = 1; i <= 6; ++i) {
    loop_.RunUntil([&] { return client->received == 50 * i; });
    const std::string node = client->generation->Report().decode_node;
    ReportDraining(node, true);
    nodes_->GiveUp(node);
    loop_.RunUntil([&] { return client->received == 50 * i + 20; });
    nodes_->Revive(node);
    ReportDraining(node, false);
  }
  Finish(*client);
  EXPECT_EQ(client->received, 500);
  EXPECT_EQ(client->report.attempts, 7);
  EXPECT_EQ(metrics_.retries_left.Value(), 6u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, WaitsForRoomWhenItsNodeDies) {
  BuildTwoOfEach({.seats = 1});
  const auto moved = Ask(100, 1000), other = Ask(100, 300);
  loop_.RunUntil([&] { return moved->received >= 40 && other->received >= 40; });
  nodes_->Kill(moved->generation->Report().decode_node);
  Finish(*moved);
  EXPECT_EQ(moved->received, 1000);
  EXPECT_EQ(other->received, 300);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, WaitsForTheOnlyNodeToComeBack) {
  Build();
  cluster_->Joined(nodes_->Add("p0", v1::ROLE_PREFILL));
  cluster_->Joined(nodes_->Add("d0", v1::ROLE_DECODE));
  loop_.RunFor(absl::Seconds(1));
  const auto client = Ask(100, 100);
  loop_.RunUntil([&] { return client->received == 40; });
  nodes_->Kill("d0");
  loop_.RunFor(absl::Seconds(3));
  EXPECT_EQ(client->endings(), 0);
  EXPECT_FALSE(cluster_->Ready().ok());
  nodes_->Revive("d0");
  Finish(*client);
  EXPECT_EQ(client->received, 100);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, ANewLifeReplacesTheOld) {
  BuildTwoOfEach();
  const auto client = Ask(100, 100);
  loop_.RunUntil([&] { return client->received == 40; });
  cluster_->Left(NodeId("d0"), Incarnation(1));
  cluster_->Joined(nodes_->Add("d0", v1::ROLE_DECODE, 2));
  Finish(*client);
  EXPECT_EQ(client->received, 100);
  EXPECT_EQ(client->report.attempts, 2);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, ADirectoryThatErrsEndsNothing) {
  BuildTwoOfEach();
  const auto client = Ask(100, 100);
  loop_.RunUntil([&] { return client->received == 40; });
  for (const char* id : {"p0", "p1", "d0", "d1"}) cluster_->Left(NodeId(id), Incarnation(1));
  EXPECT_FALSE(cluster_->Ready().ok());
  cluster_->Joined(nodes_->Add("d0", v1::ROLE_DECODE));
  cluster_->Joined(nodes_->Add("p0", v1::ROLE_PREFILL));
  EXPECT_TRUE(cluster_->Ready().ok());
  Finish(*client);
  EXPECT_EQ(client->received, 100);
  EXPECT_EQ(client->report.attempts, 1);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, AnotherModelGetsNoWork) {
  Build();
  cluster_->Joined(nodes_->Add("p0", v1::ROLE_PREFILL));
  v1::NodeInfo other = nodes_->Add("d0", v1::ROLE_DECODE);
  other.mutable_model()->set_fingerprint(8);
  cluster_->Joined(other);
  loop_.RunFor(absl::Seconds(1));
  EXPECT_FALSE(cluster_->Ready().ok());
  EXPECT_EQ(cluster_->Status().nodes_size(), 1);
}

TEST_F(ClusterTest, RefusesWithAHint) {
  BuildTwoOfEach({.seats = 1});
  const auto first = Ask(10, 50), second = Ask(10, 50), third = Ask(10, 50);
  Finish(*third);
  EXPECT_TRUE(absl::IsResourceExhausted(third->status)) << third->status;
  EXPECT_GT(third->retry_after, absl::ZeroDuration());
  Finish(*first);
  Finish(*second);
  EXPECT_EQ(first->received + second->received, 100);
  EXPECT_EQ(metrics_.requests_refused.Value(), 1u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, ShedsAboveItsOwnLimitAndWhenDraining) {
  BuildTwoOfEach({}, {.max_in_flight = 1});
  const auto first = Ask(10, 5), second = Ask(10, 5);
  Finish(*second);
  EXPECT_TRUE(absl::IsResourceExhausted(second->status));
  cluster_->Drain();
  const auto third = Ask(10, 5);
  Finish(*third);
  EXPECT_TRUE(absl::IsUnavailable(third->status));
  Finish(*first);
  EXPECT_EQ(first->received, 5);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, DeadlineEndsItEverywhere) {
  BuildTwoOfEach();
  const auto client = Ask(10, 1000, absl::Milliseconds(500));
  Finish(*client);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->status));
  EXPECT_GT(client->received, 100);
  ExpectNothingLeft();
}

// Of a life of some 13 ms, whatever phase it is in; and of the wait for a node that is not there.
TEST_F(ClusterTest, DeadlineOrCancelAtAnyMoment) {
  for (absl::Duration moment; moment < absl::Milliseconds(15); moment += absl::Microseconds(50)) {
    SCOPED_TRACE(absl::FormatDuration(moment));
    cluster_.reset();
    BuildTwoOfEach({.prefill_per_token = absl::Microseconds(50)});
    const auto late = Ask(50, 9, moment), gone = Ask(50, 9), stays = Ask(50, 9);
    loop_.PostAfter(moment, [&gone] { gone->generation.reset(); });
    Finish(*late);
    Finish(*stays);
    EXPECT_TRUE(late->finished == 1 || absl::IsDeadlineExceeded(late->status)) << late->status;
    EXPECT_EQ(stays->received, 9);
    ExpectNothingLeft();
    if (HasFailure()) return;
  }
}

TEST_F(ClusterTest, DeadlineWhileNoNodeIsThere) {
  BuildTwoOfEach();
  const auto client = Ask(10, 1000, absl::Seconds(3));
  loop_.RunFor(absl::Milliseconds(500));
  nodes_->Kill("d0");
  nodes_->Kill("d1");
  Finish(*client);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->status)) << client->status;
  ExpectNothingLeft();
}

TEST_F(ClusterTest, CancelWithinACallback) {
  BuildTwoOfEach();
  for (const int max_new_tokens : {1, 50}) {
    const auto client = Ask(10, max_new_tokens);
    client->on_tokens = [&] { client->generation.reset(); };
    loop_.RunFor(absl::Seconds(1));
    EXPECT_EQ(client->received, 1);
    EXPECT_EQ(client->endings(), 0);
  }
  EXPECT_EQ(metrics_.requests_cancelled.Value(), 2u);
  ExpectNothingLeft();
}

TEST_F(ClusterTest, GenerationsOutliveTheCluster) {
  BuildTwoOfEach();
  const auto client = Ask(10, 50), fresh = Ask(10, 50);
  loop_.RunUntil([&] { return client->received == 5; });
  const auto late = Ask(10, 50);
  cluster_.reset();
  loop_.RunFor(absl::Seconds(1));
  EXPECT_EQ(client->endings() + late->endings(), 0);
  EXPECT_EQ(client->generation->Report().prompt_tokens, 10);
}

// One schedule: requests, cancels, deaths, revivals and faults at random times.
class Schedule : public ClusterTest, public ::testing::WithParamInterface<int> {
 protected:
  void Faults(double share) {
    const auto hook = [this, share](absl::Status status) {
      return [this, share, status] { return random_.Chance(share) ? status : absl::OkStatus(); };
    };
    nodes_->faults() = {.admit = hook(absl::ResourceExhaustedError("full")),
                        .prefill = hook(absl::InternalError("broken")),
                        .decode = hook(absl::UnavailableError("draining"))};
  }
  void Disturb() {
    const std::string victim =
        std::vector<std::string>{"p0", "p1", "d0", "d1"}[random_.UniformInt(4)];
    nodes_->Kill(victim);
    loop_.PostAfter(absl::Milliseconds(random_.UniformInt(1, 3000)),
                    [this, victim] { nodes_->Revive(victim); });
  }
  Random random_{0};
};

TEST_P(Schedule, EveryRequestEndsOnceAndNothingIsLeft) {
  for (int round = 0; round < 50; ++round) {
    SCOPED_TRACE(absl::StrCat("seed ", GetParam() * 50 + round));
    random_ = Random(static_cast<uint64_t>(GetParam() * 50 + round));
    cluster_.reset();
    index_ = kvstore::BlockIndex();
    BuildTwoOfEach({.seats = 6});
    Faults(0.01);
    std::vector<std::unique_ptr<Client>> clients;
    std::vector<bool> cancelled;
    for (int i = 0; i < 20; ++i) {
      clients.push_back(Ask(static_cast<int>(random_.UniformInt(1, 200)),
                            static_cast<int>(random_.UniformInt(1, 40)),
                            absl::Milliseconds(random_.UniformInt(5, 20'000))));
      cancelled.push_back(random_.Chance(0.2));
      if (cancelled.back()) {
        loop_.PostAfter(absl::Microseconds(random_.UniformInt(0, 40'000)),
                        [client = clients.back().get()] { client->generation.reset(); });
      }
      if (random_.Chance(0.2)) Disturb();
      loop_.RunFor(absl::Microseconds(random_.UniformInt(0, 5000)));
    }
    loop_.RunFor(absl::Minutes(1));
    nodes_->faults() = {};
    for (size_t i = 0; i < clients.size(); ++i) {
      EXPECT_LE(clients[i]->endings(), 1);
      if (!cancelled[i]) {
        EXPECT_EQ(clients[i]->endings(), 1) << "request " << i;
      }
    }
    ExpectNothingLeft();
    if (HasFailure()) return;
  }
  // The schedules did meet what they are for.
  EXPECT_GT(metrics_.requests_finished.Value(), 0u);
  EXPECT_GT(metrics_.requests_cancelled.Value(), 0u);
  EXPECT_GT(metrics_.requests_failed.Value(), 0u);
  EXPECT_GT(metrics_.retries_lost.Value(), 0u);
  EXPECT_GT(metrics_.retries_refused.Value(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Schedule, ::testing::Range(0, 20));

}  // namespace
}  // namespace tarn::router
