// Fault search on the session layer: short runs of a router with nodes in virtual time, each with
// crashes, restarts, drains, late and repeated messages, full nodes, cancels and deadlines drawn
// from its seed. After each run every request has ended exactly once, with the tokens of a run
// without faults, and nothing is held at any node (I3).
//
//   --seeds=N  how many seeds the search takes
//   --seed=N   only this one
//
// That the search finds what it is for is a test too: planted faults (faulty_streams.h).

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "router/session/cluster.h"
#include "router/session/fake_nodes.h"
#include "router/session/faulty_streams.h"

namespace tarn::router {
namespace {

// Sanitizers take ten times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
uint64_t seeds = 500;
#else
uint64_t seeds = 5000;
#endif
std::optional<uint64_t> only_seed;

// What a run may meet.
//   mild: two crashes, any number of drains, never both nodes of a role: no request may fail.
//   wild: all of it, nodes that are full and executors that fail; requests may fail, with a reason.
//   lossy: also messages that vanish: what is held may stay held until a deadline.
enum class Weather { kMild, kWild, kLossy };

Weather WeatherOf(uint64_t seed) {
  if (seed % 4 == 0) return Weather::kMild;
  return seed % 4 == 3 ? Weather::kLossy : Weather::kWild;
}

const char* Name(Weather weather) {
  if (weather == Weather::kMild) return "mild";
  return weather == Weather::kWild ? "wild" : "lossy";
}

struct Answer {
  std::vector<TokenId> tokens;
  FinishReason reason = FinishReason::kLength;
};

// What a run without faults answers.
Answer AnswerTo(const GenerationRequest& request) {
  Answer answer;
  std::vector<TokenId> all = request.prompt;
  while (static_cast<int>(answer.tokens.size()) < request.max_new_tokens) {
    answer.tokens.push_back(FakeNodes::NextToken(all));
    all.push_back(answer.tokens.back());
    if (std::count(request.end_tokens.begin(), request.end_tokens.end(), all.back()) > 0) {
      answer.reason = FinishReason::kStop;
      break;
    }
  }
  return answer;
}

class Client : public GenerationSink {
 public:
  explicit Client(const GenerationRequest& request) : expected_(AnswerTo(request)) {}

  void OnTokens(std::span<const engine::SampledToken> tokens) override {
    Must(generation != nullptr && endings == 0, "tokens after the end");
    for (const engine::SampledToken& token : tokens) {
      const bool right =
          received_ < expected_.tokens.size() && expected_.tokens[received_] == token.token;
      Must(right, absl::StrCat("token ", received_, " is not that of a run without faults"));
      ++received_;
    }
  }
  void OnFinished(FinishReason reason, const GenerationReport&) override {
    Must(generation != nullptr && ++endings == 1, "ends twice");
    Must(received_ == expected_.tokens.size(),
         absl::StrCat("finished with ", received_, " of ", expected_.tokens.size(), " tokens"));
    Must(reason == expected_.reason, "finished for the wrong reason");
  }
  void OnFailed(const absl::Status& why, absl::Duration) override {
    Must(generation != nullptr && ++endings == 1, "ends twice");
    status = why;
  }
  void Cancel() {
    generation.reset();
    cancelled = endings == 0;
  }
  const std::string& violation() const { return violation_; }

  std::unique_ptr<Generation> generation;
  bool cancelled = false;
  int endings = 0;
  absl::Status status;

 private:
  void Must(bool holds, const std::string& what) {
    if (!holds && violation_.empty()) violation_ = what;
  }
  const Answer expected_;
  size_t received_ = 0;
  std::string violation_;
};

// What happened in runs, to show that they met what they are for.
struct Tally {
  uint64_t finished = 0, failed = 0, refused = 0, cancelled = 0;
  uint64_t lost = 0, left = 0, retried_full = 0;
  int strikes = 0;
};

class Run {
 public:
  Run(uint64_t seed, Planted planted)
      : random_(seed), weather_(WeatherOf(seed)), nodes_(&loop_, NodeOptions()) {
    LinkFaults& faults = streams_.faults();
    faults.max_delay = absl::Microseconds(random_.UniformInt(0, 20'000));
    faults.max_untold = absl::Milliseconds(random_.UniformInt(0, 1500));
    if (weather_ != Weather::kMild) faults.repeat = random_.Chance(0.5) ? 0.02 : 0;
    if (weather_ == Weather::kLossy) faults.lose = 0.01;
    faults.planted = planted;
    MakeCluster();
  }

  // The first thing that was wrong; empty: nothing.
  std::string Execute(Tally& tally) {
    const int requests = static_cast<int>(random_.UniformInt(6, 14));
    for (int i = 0; i < requests; ++i) {
      Ask();
      if (random_.Chance(0.4)) Disturb();
      loop_.RunFor(absl::Microseconds(random_.UniformInt(0, 20'000)));
    }
    loop_.RunUntil([&] { return AllEnded(); }, absl::Minutes(2));
    const std::string requests_wrong = CheckRequests();
    Heal();
    // Long enough for words that are on their way; in lossy weather for deadlines, too.
    loop_.RunFor(weather_ == Weather::kLossy ? absl::Minutes(2) : absl::Seconds(5));
    Count(tally);
    return requests_wrong.empty() ? CheckNothingLeft() : requests_wrong;
  }

 private:
  struct Node {
    std::string id;
    v1::Role role;
    uint64_t incarnation = 1;
    absl::Time busy_until = absl::InfinitePast();  // being disturbed
  };

  FakeNodes::Options NodeOptions() {
    FakeNodes::Options options;
    options.prefill_per_token = absl::Microseconds(random_.UniformInt(5, 100));
    if (weather_ != Weather::kMild) options.seats = random_.UniformInt(uint64_t{6}) + 2;
    options.deadlines = true;
    return options;
  }

  void MakeCluster() {
    cluster_ = std::make_unique<Cluster>(
        ClusterOptions(),
        ClusterParts{.loop = &loop_,
                     .streams = &streams_,
                     .metrics = &metrics_,
                     .index = [this]() -> const kvstore::BlockIndex& { return index_; }},
        random_.Fork());
    const int of_each = static_cast<int>(random_.UniformInt(2, 3));
    for (int i = 0; i < of_each; ++i) {
      all_.push_back({absl::StrCat("p", i), v1::ROLE_PREFILL});
      all_.push_back({absl::StrCat("d", i), v1::ROLE_DECODE});
    }
    for (const Node& node : all_) Join(node);
    loop_.RunFor(absl::Seconds(1));
    if (weather_ != Weather::kMild) SetHooks(0.005);
  }

  void SetHooks(double share) {
    const auto hook = [this, share](absl::Status status) {
      return [this, share, status] { return random_.Chance(share) ? status : absl::OkStatus(); };
    };
    nodes_.faults() = {.admit = hook(absl::ResourceExhaustedError("full")),
                       .prefill = hook(absl::InternalError("broken")),
                       .decode = hook(absl::InternalError("broken"))};
  }

  void Join(const Node& node) {
    cluster_->Joined(nodes_.Add(node.id, node.role, node.incarnation));
  }
  void LeaveDirectory(const Node& node) {
    cluster_->Left(NodeId(node.id), Incarnation(node.incarnation));
  }

  void Ask() {
    GenerationRequest request;
    const int length = static_cast<int>(random_.UniformInt(1, 120));
    for (int i = 0; i < length; ++i) {
      request.prompt.push_back(static_cast<TokenId>(random_.UniformInt(1, 1000)));
    }
    request.max_new_tokens = static_cast<int>(random_.UniformInt(1, 80));
    for (int i = 0; i < 5; ++i) {
      request.end_tokens.push_back(static_cast<TokenId>(random_.UniformInt(1, 1000)));
    }
    request.received = loop_.Now();
    request.deadline = DrawDeadline();
    clients_.push_back(std::make_unique<Client>(request));
    Client* const client = clients_.back().get();
    client->generation = cluster_->Start(std::move(request), client);
    if (!random_.Chance(0.15)) return;
    loop_.PostAfter(absl::Microseconds(random_.UniformInt(0, 100'000)),
                    [client] { client->Cancel(); });
  }

  absl::Time DrawDeadline() {
    if (weather_ == Weather::kLossy) {
      return loop_.Now() + absl::Milliseconds(random_.UniformInt(100, 3000));
    }
    const bool none = weather_ == Weather::kMild || random_.Chance(0.6);
    return none ? absl::InfiniteFuture()
                : loop_.Now() + absl::Milliseconds(random_.UniformInt(1, 5000));
  }

  // Disturbances.

  void Disturb() {
    Node& node = all_[random_.UniformInt(all_.size())];
    if (weather_ == Weather::kMild && Busy(node.role)) return;
    if (node.busy_until > loop_.Now()) return;
    const absl::Duration away = absl::Milliseconds(random_.UniformInt(1, 2000));
    // Reconnecting takes two seconds at most, and as long again where ends are told late.
    node.busy_until = loop_.Now() + away + absl::Seconds(4);
    const uint64_t what = random_.UniformInt(uint64_t{10});
    if (what < 5) {
      Drain(node, away);
    } else if (weather_ == Weather::kMild && ++crashes_ > 2) {
      node.busy_until = absl::InfinitePast();
    } else if (what < 8) {
      Crash(node, away);
    } else if (what < 9 || weather_ == Weather::kMild) {
      Blip(node, away);
    } else {
      DirectoryErrs(away);
    }
  }

  bool Busy(v1::Role role) const {
    return std::any_of(all_.begin(), all_.end(), [&](const Node& node) {
      return node.role == role && node.busy_until > loop_.Now();
    });
  }

  // The process ends, and a new life of it begins.
  void Crash(Node& node, absl::Duration away) {
    nodes_.Kill(node.id);
    if (random_.Chance(0.7)) {
      After(away * random_.UniformDouble(), [this, &node] { LeaveDirectory(node); });
    }
    After(away, [this, &node] { NewLife(node); });
  }

  void NewLife(Node& node) {
    nodes_.Revive(node.id);
    ++node.incarnation;
    Join(node);
  }

  // Only its connections break.
  void Blip(Node& node, absl::Duration away) {
    nodes_.Kill(node.id);
    After(away / 10, [this, &node] { nodes_.Revive(node.id); });
  }

  // SIGTERM: says that it drains, sooner or later known; gives up what it still has; goes.
  void Drain(Node& node, absl::Duration away) {
    nodes_.Leave(node.id);
    const absl::Duration grace = away * 0.5 * random_.UniformDouble();
    After(grace * random_.UniformDouble(), [this, &node] {
      v1::NodeLoad load;
      load.set_draining(true);
      cluster_->Reported(NodeId(node.id), load);
    });
    After(grace, [this, &node] { nodes_.GiveUp(node.id); });
    // Words that are on their way arrive, as the stream's grace sees to.
    After(grace + streams_.faults().max_delay + absl::Milliseconds(1), [this, &node] {
      LeaveDirectory(node);
      nodes_.Kill(node.id);
    });
    After(grace + streams_.faults().max_delay + away, [this, &node] { NewLife(node); });
  }

  void DirectoryErrs(absl::Duration away) {
    for (const Node& node : all_) LeaveDirectory(node);
    After(away / 20, [this] {
      for (const Node& node : all_) Join(node);
    });
  }

  void After(absl::Duration delay, std::function<void()> task) {
    loop_.PostAfter(delay, std::move(task));
  }

  // The end.

  bool AllEnded() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& client) { return client->cancelled || client->endings > 0; });
  }

  std::string CheckRequests() const {
    for (size_t i = 0; i < clients_.size(); ++i) {
      const Client& client = *clients_[i];
      const std::string which = absl::StrCat("request ", i, ": ");
      if (!client.violation().empty()) return which + client.violation();
      if (!client.cancelled && client.endings == 0) return which + "does not end";
      if (client.status.ok()) continue;
      if (weather_ == Weather::kMild || !IsExpected(client.status)) {
        return which + "failed: " + client.status.ToString();
      }
    }
    return "";
  }

  static bool IsExpected(const absl::Status& status) {
    return absl::IsResourceExhausted(status) || absl::IsUnavailable(status) ||
           absl::IsDeadlineExceeded(status) || absl::IsInternal(status);
  }

  void Heal() {
    nodes_.faults() = {};
    for (const Node& node : all_) nodes_.Revive(node.id);
  }

  std::string CheckNothingLeft() {
    for (const auto& client : clients_) {
      if (!client->violation().empty()) return client->violation();
    }
    if (cluster_->in_flight() != 0) return "requests are in flight after their end";
    if (metrics_.requests_in_flight.Value() != 0) return "the gauge of requests is not zero";
    if (nodes_.seats() != 0) return absl::StrCat(nodes_.seats(), " seats are held");
    if (nodes_.pins() != 0) return absl::StrCat(nodes_.pins(), " pins are held");
    // Blocks may have vanished, and real nodes compute them then.
    if (weather_ != Weather::kLossy && !nodes_.violations().empty()) {
      return nodes_.violations().front();
    }
    const uint64_t ended = metrics_.requests_finished.Value() + metrics_.requests_failed.Value() +
                           metrics_.requests_refused.Value() + metrics_.requests_cancelled.Value();
    return ended == clients_.size() ? "" : "requests are counted wrongly";
  }

  void Count(Tally& tally) const {
    tally.finished += metrics_.requests_finished.Value();
    tally.failed += metrics_.requests_failed.Value();
    tally.refused += metrics_.requests_refused.Value();
    tally.cancelled += metrics_.requests_cancelled.Value();
    tally.lost += metrics_.retries_lost.Value();
    tally.left += metrics_.retries_left.Value();
    tally.retried_full += metrics_.retries_refused.Value();
    tally.strikes += streams_.strikes();
  }

  Random random_;
  const Weather weather_;
  SimEventLoop loop_;
  metrics::Registry registry_;
  RouterMetrics metrics_{registry_};
  kvstore::BlockIndex index_;
  FakeNodes nodes_;
  FaultyStreams streams_{&nodes_, &loop_, &random_};
  std::unique_ptr<Cluster> cluster_;
  std::vector<Node> all_;
  int crashes_ = 0;
  std::vector<std::unique_ptr<Client>> clients_;  // after the cluster: they cancel
};

std::string RunSeed(uint64_t seed, Planted planted, Tally& tally) {
  return Run(seed, planted).Execute(tally);
}

TEST(FaultSearch, NoSeedFindsAnything) {
  Tally tally;
  const uint64_t first = only_seed.value_or(0), end = only_seed ? first + 1 : seeds;
  for (uint64_t seed = first; seed < end; ++seed) {
    const std::string wrong = RunSeed(seed, Planted::kNothing, tally);
    ASSERT_EQ(wrong, "") << "seed " << seed << ", " << Name(WeatherOf(seed))
                         << " weather. Replay:\n"
                         << "  bazel test --config=release //router/session:fault_search_test"
                         << " --test_output=all --test_arg=--seed=" << seed;
  }
  std::cout << end - first << " seeds: " << tally.finished << " requests finished, " << tally.failed
            << " failed, " << tally.refused << " refused, " << tally.cancelled
            << " cancelled; tried again since a node was lost " << tally.lost << " times, leaving "
            << tally.left << ", full " << tally.retried_full << "\n";
  if (only_seed) return;
  // The runs met what they are for.
  EXPECT_GT(tally.finished, 5 * seeds);
  for (const uint64_t count :
       {tally.failed, tally.refused, tally.cancelled, tally.lost, tally.left, tally.retried_full}) {
    EXPECT_GT(count, seeds / 50);
  }
}

TEST(FaultSearch, MildWeatherFailsNothing) {
  if (only_seed) return;
  Tally tally;
  for (uint64_t seed = 0; seed < 400; seed += 4) {
    ASSERT_EQ(WeatherOf(seed), Weather::kMild);
    ASSERT_EQ(RunSeed(seed, Planted::kNothing, tally), "") << seed;
  }
  EXPECT_EQ(tally.failed + tally.refused, 0u);
  EXPECT_GT(tally.left, 50u);
}

class PlantedFault : public ::testing::TestWithParam<std::pair<Planted, const char*>> {};

TEST_P(PlantedFault, IsFound) {
  if (only_seed) return;
  constexpr uint64_t kMost = 500;
  Tally tally;
  for (uint64_t seed = 0; seed < kMost; ++seed) {
    const std::string wrong = RunSeed(seed, GetParam().first, tally);
    if (wrong.empty()) continue;
    std::cout << GetParam().second << ": found by seed " << seed << " after " << tally.strikes
              << " strikes: " << wrong << "\n";
    EXPECT_GT(tally.strikes, 0) << "what was found is not what was planted";
    return;
  }
  FAIL() << "not found by " << kMost << " seeds, though it struck " << tally.strikes << " times";
}

INSTANTIATE_TEST_SUITE_P(All, PlantedFault,
                         ::testing::Values(std::pair{Planted::kSwallowRelease, "SwallowedRelease"},
                                           std::pair{Planted::kSwallowCancel, "SwallowedCancel"},
                                           std::pair{Planted::kReplayTokens, "ReplayedTokens"},
                                           std::pair{Planted::kStaleLegPasses, "StaleLegPasses"},
                                           std::pair{Planted::kDeathGoesUntold, "DeathGoesUntold"}),
                         [](const auto& info) { return std::string(info.param.second); });

}  // namespace

// Takes the flags above; false names what it does not know.
bool TakeArguments(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    uint64_t number = 0;
    if (argument.rfind("--seed=", 0) == 0 && absl::SimpleAtoi(argument.substr(7), &number)) {
      only_seed = number;
    } else if (argument.rfind("--seeds=", 0) == 0 &&
               absl::SimpleAtoi(argument.substr(8), &number)) {
      seeds = number;
    } else {
      std::cerr << "unknown argument " << argument << "\n";
      return false;
    }
  }
  return true;
}

}  // namespace tarn::router

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  FLAGS_minloglevel = google::FATAL;  // nodes that join and leave, thousands of times
  FLAGS_logtostderr = true;
  if (!tarn::router::TakeArguments(argc, argv)) return 2;
  return RUN_ALL_TESTS();
}
