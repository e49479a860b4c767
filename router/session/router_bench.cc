// What the router costs: a decision among many nodes, and the whole life of a request.
//
// Bound of a decision among 100 nodes: 50 prefill and 50 decode predictions of some tens of
// floating point operations, three walks over a tree of 100 nodes: about 10 us.

#include <benchmark/benchmark.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "router/policy/choose.h"
#include "router/session/cluster.h"
#include "router/session/fake_nodes.h"

namespace tarn::router {
namespace {

void BM_Choose(benchmark::State& state) {
  ClusterView view;
  std::vector<kvstore::NodeMatch> matches;
  const absl::Time now = absl::UnixEpoch();
  for (int64_t i = 0; i < state.range(0); ++i) {
    const NodeId id(absl::StrCat("node-", 1000 + i));
    view.Join(id, i % 2 == 0 ? NodeRole::kPrefill : NodeRole::kDecode);
    view.SetConnected(id, true);
    view.Report(id,
                {.hbm_pages = 10'000,
                 .running = static_cast<int>(i),
                 .max_running = 256,
                 .waiting_tokens = 100 * i,
                 .prefill_us_per_token = 20,
                 .step_us = 5000,
                 .pull_bytes_per_us = 5000},
                now);
    matches.push_back({.node = id, .blocks = static_cast<int>(i), .hbm_blocks = 0});
  }
  const RouteRequest request = {.tokens = 8000, .max_new_tokens = 500};
  const BlockShape block = {.tokens = 64, .bytes = 9e6};
  for (auto _ : state) benchmark::DoNotOptimize(Choose(request, view, matches, block, now));
}
BENCHMARK(BM_Choose)->Arg(2)->Arg(100);

struct Sink : GenerationSink {
  void OnTokens(std::span<const engine::SampledToken>) override {}
  void OnFinished(FinishReason, const GenerationReport&) override { ++ended; }
  void OnFailed(const absl::Status&, absl::Duration) override { ++ended; }
  int ended = 0;
};

// The fake nodes and the simulated loop run in the same thread: an upper bound.
void BM_Request(benchmark::State& state) {
  SimEventLoop loop;
  metrics::Registry registry;
  RouterMetrics metrics(registry);
  kvstore::BlockIndex index;
  FakeNodes nodes(&loop, {});
  Cluster cluster({},
                  {.loop = &loop,
                   .streams = &nodes,
                   .metrics = &metrics,
                   .index = [&]() -> const kvstore::BlockIndex& { return index; }},
                  Random(1));
  for (int i = 0; i < 4; ++i) {
    cluster.Joined(nodes.Add(absl::StrCat("p", i), v1::ROLE_PREFILL));
    cluster.Joined(nodes.Add(absl::StrCat("d", i), v1::ROLE_DECODE));
  }
  loop.RunFor(absl::Seconds(1));
  for (auto _ : state) {
    GenerationRequest request;
    request.prompt.assign(static_cast<size_t>(state.range(0)), 7);
    request.max_new_tokens = static_cast<int>(state.range(1));
    request.received = loop.Now();
    request.deadline = loop.Now() + absl::Minutes(1);
    Sink sink;
    const auto generation = cluster.Start(std::move(request), &sink);
    loop.RunUntil([&] { return sink.ended > 0; });
  }
}
BENCHMARK(BM_Request)->Args({1000, 1})->Args({1000, 100})->Args({10'000, 1});

}  // namespace
}  // namespace tarn::router
