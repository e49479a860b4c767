#include "sim/cluster/cluster.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "sim/cost/step_cost.h"

namespace tarn::sim {
namespace {

Workload Sessions(double per_second = 1, absl::Duration duration = absl::Minutes(5)) {
  SessionOptions options;
  options.duration = duration;
  options.sessions_per_second = per_second;
  options.mean_think_time = absl::Seconds(20);
  return MakeSessions(options);
}

ClusterConfig Split(int prefill = 2, int decode = 2) {
  ClusterConfig config;
  config.model = *FindModel("Qwen3-8B");
  config.hardware = *FindHardware("h200");
  config.hardware.ssd_bytes = 0;
  config.prefill_nodes = prefill;
  config.decode_nodes = decode;
  config.slo = {absl::Seconds(5), absl::Milliseconds(50)};
  return config;
}

ClusterConfig Coupled(CoupledStep step, int nodes = 4) {
  ClusterConfig config = Split(0, 0);
  config.coupled_nodes = nodes;
  config.coupled_step = step;
  config.policy = RouterPolicy::kLocalCache;
  return config;
}

RunResult Replay(const Workload& workload, const ClusterConfig& config) {
  auto result = Simulate(workload, config);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : RunResult();
}

// All sorts of clusters.
std::vector<ClusterConfig> Kinds() {
  std::vector<ClusterConfig> kinds;
  for (const RouterPolicy policy :
       {RouterPolicy::kTarn, RouterPolicy::kRandom, RouterPolicy::kLeastLoad,
        RouterPolicy::kLocalCache, RouterPolicy::kLongestPrefix}) {
    kinds.push_back(Split());
    kinds.back().policy = policy;
  }
  for (const Rejection rejection :
       {Rejection::kLate, Rejection::kByLoad, Rejection::kByPrediction}) {
    kinds.push_back(Split());
    kinds.back().rejection = rejection;
    kinds.back().max_batch = 4;
  }
  kinds.push_back(Split());
  kinds.back().pool = false;
  kinds.push_back(Split());
  kinds.back().eviction = Eviction::kLearned;
  kinds.back().dram_bytes = 5e9;
  kinds.back().ssd_bytes = 100e9;
  kinds.push_back(Split());
  kinds.back().hbm_bytes_for_kv = 12e9;  // 163 pages: admission waits for pages
  kinds.push_back(Split());
  kinds.back().store_nodes = 2;
  kinds.back().store_dram_bytes = 100e9;
  kinds.push_back(Coupled(CoupledStep::kPrefillFirst));
  kinds.push_back(Coupled(CoupledStep::kChunked));
  kinds.back().pool = true;
  kinds.back().policy = RouterPolicy::kTarn;
  return kinds;
}

TEST(Simulate, EveryRequestEndsOnceAndGivesEverythingBack) {
  // Simulate itself checks that each request ends once and that no node holds a page, job or seat
  // afterwards.
  const Workload workload = Sessions(3, absl::Seconds(40));
  for (const ClusterConfig& config : Kinds()) {
    SCOPED_TRACE(std::string(Name(config.policy)) + ", " + Name(config.rejection));
    const RunSummary summary = Summarize(Replay(workload, config), config.slo);
    EXPECT_EQ(summary.requests, static_cast<int>(workload.requests.size()));
    EXPECT_EQ(summary.done + summary.rejected + summary.rejected_late + summary.too_long,
              summary.requests);
    EXPECT_GT(summary.done, 0);
    if (config.rejection == Rejection::kNever) {
      EXPECT_EQ(summary.rejected + summary.rejected_late, 0);
    }
  }
}

TEST(Simulate, SameSeedSameBytes) {
  const Workload workload = Sessions(3, absl::Seconds(15));
  for (const ClusterConfig& config : Kinds()) {
    EXPECT_EQ(Replay(workload, config).ToText(), Replay(workload, config).ToText());
  }
  ClusterConfig one = Split(), other = Split();
  one.policy = other.policy = RouterPolicy::kRandom;
  other.seed = 2;
  EXPECT_NE(Replay(workload, one).ToText(), Replay(workload, other).ToText());
}

TEST(Simulate, SkippedStepsChangeNothing) {
  const Workload workload = Sessions(2, absl::Seconds(20));
  for (ClusterConfig config : Kinds()) {
    const std::string skipped = Replay(workload, config).ToText();
    config.skip_steps = false;
    EXPECT_EQ(Replay(workload, config).ToText(), skipped);
  }
}

TEST(Simulate, OneRequestTakesWhatItsPartsTake) {
  Workload workload;
  workload.requests = {{absl::Seconds(1), 2048, 11, {1, 2, 3, 4}}};
  const ClusterConfig config = Split(1, 1);
  const Outcome outcome = Replay(workload, config).requests[0];
  ASSERT_TRUE(outcome.done());
  const StepCost cost(config.model, config.hardware);
  StepWork prompt;
  prompt.AddChunk(0, 2048, true);
  EXPECT_EQ(outcome.ttft, cost.Of(prompt) + config.call_latency);
  absl::Duration answer;
  for (int i = 1; i <= 10; ++i) {
    StepWork step;
    step.AddDecode(1, 2048 + i);
    answer += cost.Of(step);
  }
  // The hand-over: 2,048 tokens of 144 KiB at 46 GB/s, before the second token.
  answer += absl::Seconds(2048.0 * 144 * 1024 / 46e9);
  EXPECT_NEAR(absl::ToDoubleMicroseconds(outcome.tpot * 10), absl::ToDoubleMicroseconds(answer), 1);
}

TEST(Simulate, TheSecondTurnReusesTheFirst) {
  Workload workload;
  workload.requests = {{absl::Seconds(1), 2048, 5, {1, 2, 3, 4}},
                       {absl::Seconds(9), 3000, 5, {1, 2, 3, 4, 5, 6}}};
  const RunResult result = Replay(workload, Split(1, 1));
  EXPECT_EQ(result.requests[0].matched_blocks, 0);
  EXPECT_EQ(result.requests[1].matched_blocks, 4);
  EXPECT_EQ(result.requests[1].hbm_tokens, 2048);
  EXPECT_LT(result.requests[1].ttft, result.requests[0].ttft);
}

TEST(Simulate, ABusyHolderIsPulledFrom) {
  // A prefix that one node holds, then many at once that want it: others pull it.
  Workload workload;
  std::vector<int64_t> prefix;
  for (int64_t i = 0; i < 40; ++i) prefix.push_back(i);
  for (int i = 0; i < 9; ++i) {
    std::vector<int64_t> ids = prefix;
    for (int64_t j = 0; j < 20; ++j) ids.push_back(1000 + 100 * i + j);
    workload.requests.push_back(
        {i == 0 ? absl::ZeroDuration() : absl::Seconds(20), 60 * 512, 2, std::move(ids)});
  }
  const RunResult pool = Replay(workload, Split(4, 1));
  EXPECT_GT(Summarize(pool, {}).remote_tokens, 0);
  ClusterConfig alone = Split(4, 1);
  alone.pool = false;
  alone.policy = RouterPolicy::kLocalCache;
  const RunResult local = Replay(workload, alone);
  EXPECT_EQ(Summarize(local, {}).remote_tokens, 0);
  EXPECT_LT(Summarize(pool, {}).ttft_s.mean, Summarize(local, {}).ttft_s.mean);
}

TEST(Simulate, PrefillFirstStallsAnswersAndChunksDoLess) {
  const Workload workload = Sessions(4, absl::Minutes(2));
  const RunSummary first = Summarize(Replay(workload, Coupled(CoupledStep::kPrefillFirst)), {});
  ClusterConfig chunked = Coupled(CoupledStep::kChunked);
  chunked.chunk_tokens = 256;
  const RunSummary chunks = Summarize(Replay(workload, chunked), {});
  const RunSummary split = Summarize(Replay(workload, Split()), {});
  EXPECT_LT(chunks.worst_gap_ms.p99, first.worst_gap_ms.p99);
  EXPECT_LT(split.tpot_ms.p90, first.tpot_ms.p90);
}

TEST(Simulate, SeatsPromisedBeforehandWasteNoPrefill) {
  const Workload workload = Sessions(6, absl::Minutes(1));
  ClusterConfig config = Split(3, 1);
  config.max_batch = 6;
  config.rejection = Rejection::kLate;
  const RunResult late = Replay(workload, config);
  EXPECT_GT(Summarize(late, config.slo).rejected_late, 0);
  EXPECT_GT(late.wasted_tokens, 0);
  config.rejection = Rejection::kByPrediction;
  const RunResult predicted = Replay(workload, config);
  EXPECT_EQ(Summarize(predicted, config.slo).rejected_late, 0);
  EXPECT_EQ(predicted.wasted_tokens, 0);
  EXPECT_GT(Summarize(predicted, config.slo).rejected, 0);
}

TEST(Simulate, SaysWhatDoesNotFit) {
  const Workload workload = Sessions(1, absl::Seconds(10));
  ClusterConfig config = Split();
  config.coupled_nodes = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(Simulate(workload, config).status()));
  config = Split();
  config.model = *FindModel("DeepSeek-V3");
  EXPECT_TRUE(absl::IsInvalidArgument(Simulate(workload, config).status()));
  config = Split();
  config.hbm_bytes_for_kv = 75e6 * 3;  // two pages and a bit
  const RunSummary summary = Summarize(Replay(workload, config), {});
  EXPECT_GT(summary.too_long, 0);
}

TEST(SpreadOf, InterpolatesBetweenRanks) {
  const Spread spread = SpreadOf({4, 1, 3, 2, 5});
  EXPECT_EQ(spread.mean, 3);
  EXPECT_EQ(spread.p50, 3);
  EXPECT_DOUBLE_EQ(spread.p90, 4.6);
  EXPECT_EQ(SpreadOf({}).p99, 0);
}

// Of the public trace, as counted by others: 36.64% of block references were seen before.
TEST(PublicTrace, AnInfiniteCacheHitsWhatItShould) {
  const char* const path = std::getenv("TARN_TRACE");
  const auto workload = ReadWorkload(path == nullptr ? "" : path);
  if (!workload.ok()) GTEST_SKIP() << "TARN_TRACE: " << workload.status();
  // Prompts take no time, so none is asked for again before it is there; and nothing is evicted.
  ClusterConfig config = Split(4, 2);
  config.hardware.flops_per_s *= 1e6;
  config.hardware.memory_bytes_per_s *= 1e6;
  config.hardware.network_bytes_per_s *= 1e6;
  config.hardware.host_bytes_per_s *= 1e6;
  config.hardware.step_overhead_us = 0;
  config.chunk_tokens = 1 << 20;
  config.hbm_bytes_for_kv = 40e12;
  config.dram_bytes = 0;
  const RunSummary summary = Summarize(Replay(*workload, config), {});
  EXPECT_EQ(summary.done, 12'031);
  EXPECT_NEAR(100 * summary.block_hits, 36.64, 0.005);
}

}  // namespace
}  // namespace tarn::sim
