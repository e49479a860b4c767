// Simulated clusters on the public trace: the tables of docs/performance.md.
//
// By hand: bazel run --config=release //tests/bench:sim_bench -- TRACE [--only paper,…]

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"
#include "sim/cluster/cluster.h"
#include "sim/report/chart.h"
#include "sim/workload/workload.h"
#include "tests/bench/policy/replay.h"
#include "tests/bench/policy/trace.h"

namespace tarn::sim {
namespace {

RunResult MustRun(const Workload& workload, const ClusterConfig& config) {
  auto result = Simulate(workload, config);
  if (!result.ok()) {
    std::cerr << "sim_bench: " << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}

ClusterConfig Cluster(const char* model, const char* hardware, int prefill, int decode) {
  ClusterConfig config;
  config.model = *FindModel(model);
  config.hardware = *FindHardware(hardware);
  config.prefill_nodes = prefill;
  config.decode_nodes = decode;
  return config;
}

// The testbed of the Mooncake paper.
ClusterConfig Paper() {
  ClusterConfig config = Cluster("Llama-3-70B", "a800x8", 8, 8);
  config.slo = {absl::Seconds(30), absl::Milliseconds(100)};
  return config;
}

struct PolicyRow {
  const char* name;
  RouterPolicy policy;
  bool pool;
};
constexpr PolicyRow kPolicies[] = {
    {"random", RouterPolicy::kRandom, false},
    {"load balancing", RouterPolicy::kLeastLoad, false},
    {"local cache-aware", RouterPolicy::kLocalCache, false},
    {"longest prefix first", RouterPolicy::kLongestPrefix, false},
    {"tarn", RouterPolicy::kTarn, true},
};

void PrintPolicies(const Workload& workload, const ClusterConfig& base) {
  std::cout << "| policy | TTFT mean | p50 | p90 | p99 | TPOT p90 ms | reused tokens | prefill "
               "busy | decode busy |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const PolicyRow& row : kPolicies) {
    ClusterConfig config = base;
    config.policy = row.policy;
    config.pool = row.pool;
    const RunResult result = MustRun(workload, config);
    const RunSummary s = Summarize(result, config.slo);
    std::cout << absl::StrFormat(
        "| %s | %.2f | %.2f | %.2f | %.2f | %.1f | %.1f%% | %.0f%% | %.0f%% |\n", row.name,
        s.ttft_s.mean, s.ttft_s.p50, s.ttft_s.p90, s.ttft_s.p99, s.tpot_ms.p90,
        100 * s.reused_tokens, 100 * result.prefill.busy, 100 * result.decode.busy);
    std::cout.flush();
  }
}

// 1 (a): the paper's comparison of routers, mean TTFT in seconds.
void RunPaper(const Workload& workload) {
  std::cout << "\n## Mean TTFT on the paper's testbed (Llama-3-70B, 8 prefill + 8 decode nodes of "
               "8 A800, s)\n";
  for (const double rate : {1.0, 1.5, 2.0, 2.5}) {
    std::cout << absl::StrFormat(
        "\nrate x %.2g (%.2f requests/s)\n\n", rate,
        rate * workload.requests.size() / absl::ToDoubleSeconds(workload.duration()));
    PrintPolicies(ScaleRate(workload, rate), Paper());
  }
}

void RunSpeed(const Workload& workload) {
  std::cout << "\n## Speed\n\n| cluster | requests/s of CPU time | events a request |\n"
               "|---|---|---|\n";
  const auto measure = [&workload](const char* name, const ClusterConfig& config) {
    double best = 0;
    RunResult result;
    for (int i = 0; i < 3; ++i) {
      const std::clock_t start = std::clock();
      result = MustRun(workload, config);
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      best = std::max(best, static_cast<double>(workload.requests.size()) / seconds);
    }
    std::cout << absl::StrFormat(
        "| %s | %.0f | %.1f |\n", name, best,
        static_cast<double>(result.events) / static_cast<double>(workload.requests.size()));
  };
  measure("16 nodes of 8 A800, Llama-3-70B", Paper());
  measure("8 H200, Qwen3-8B", Cluster("Qwen3-8B", "h200", 5, 3));
}

// The highest factor of the trace's rate at which `share` of requests is within the SLO, within 3%.
double Capacity(const Workload& workload, const ClusterConfig& config, double guess) {
  constexpr double kShare = 0.9;
  const auto good = [&](double factor) {
    const RunResult result = MustRun(ScaleRate(workload, factor), config);
    return Summarize(result, config.slo).good_share >= kShare;
  };
  double low = guess, high = guess;
  if (good(guess)) {
    do {
      low = high;
      high *= 1.3;
    } while (good(high));
  } else {
    do {
      high = low;
      low /= 1.3;
      if (low < 1e-2) return 0;
    } while (!good(low));
  }
  while (high / low > 1.03) {
    const double middle = std::sqrt(low * high);
    (good(middle) ? low : high) = middle;
  }
  return low;
}

struct Candidate {
  std::string name;
  ClusterConfig config;
};

std::vector<Candidate> CapacityCandidates(const Slo& slo) {
  std::vector<Candidate> all;
  ClusterConfig coupled = Cluster("Qwen3-8B", "h200", 0, 0);
  coupled.coupled_nodes = 8;
  coupled.slo = slo;
  coupled.hardware.ssd_bytes = 0;
  coupled.pool = false;
  coupled.coupled_step = CoupledStep::kPrefillFirst;
  coupled.chunk_tokens = 32'768;
  coupled.policy = RouterPolicy::kLeastLoad;
  all.push_back({"coupled, prefill first, node-local cache, load balancing", coupled});
  coupled.policy = RouterPolicy::kLocalCache;
  all.push_back({"coupled, prefill first, node-local cache, cache-aware", coupled});
  coupled.coupled_step = CoupledStep::kChunked;
  for (const bool pool : {false, true}) {
    for (const int chunk : {256, 512, 1024, 2048}) {
      ClusterConfig config = coupled;
      config.chunk_tokens = chunk;
      config.pool = pool;
      config.policy = pool ? RouterPolicy::kTarn : RouterPolicy::kLocalCache;
      all.push_back({absl::StrFormat("coupled, chunks of %d, %s", chunk,
                                     pool ? "pool, tarn's router" : "node-local, cache-aware"),
                     config});
    }
  }
  for (const bool pool : {false, true}) {
    for (const int prefill : {7, 6, 5, 4, 3}) {
      ClusterConfig config = Cluster("Qwen3-8B", "h200", prefill, 8 - prefill);
      config.slo = slo;
      config.hardware.ssd_bytes = 0;
      config.pool = pool;
      config.policy = pool ? RouterPolicy::kTarn : RouterPolicy::kLocalCache;
      all.push_back({absl::StrFormat("split %d:%d, %s", prefill, 8 - prefill,
                                     pool ? "pool, tarn's router" : "node-local, cache-aware"),
                     config});
    }
  }
  return all;
}

// 1 (b).
void RunCapacity(const Workload& whole) {
  Workload workload = whole;
  workload.requests.resize(std::min<size_t>(workload.requests.size(), 4000));
  const double rate =
      static_cast<double>(workload.requests.size()) / absl::ToDoubleSeconds(workload.duration());
  std::cout << absl::StrFormat(
      "\n## Effective capacity of 8 H200, Qwen3-8B (first %d requests, requests/s with 90%% within "
      "the SLO)\n",
      workload.requests.size());
  for (const int tpot_ms : {100, 50}) {
    std::cout << "\nTTFT 5 s, TPOT " << tpot_ms << " ms\n\n"
              << "| cluster | requests/s | over the first | reused tokens | TTFT p90 s | TPOT p90 "
                 "ms | worst gap p90 ms |\n|---|---|---|---|---|---|---|\n";
    double guess = 1, first = 0;
    for (const Candidate& c : CapacityCandidates({absl::Seconds(5), absl::Milliseconds(tpot_ms)})) {
      const double factor = Capacity(workload, c.config, guess);
      if (first == 0) first = factor;
      if (factor > 0) guess = factor;
      const RunSummary s =
          Summarize(MustRun(ScaleRate(workload, std::max(factor, 0.01)), c.config), c.config.slo);
      std::cout << absl::StrFormat("| %s | %.2f | %.2f | %.1f%% | %.2f | %.1f | %.0f |\n", c.name,
                                   factor * rate, first > 0 ? factor / first : 0,
                                   100 * s.reused_tokens, s.ttft_s.p90, s.tpot_ms.p90,
                                   s.worst_gap_ms.p90);
      std::cout.flush();
    }
  }
}

// 2.
void RunPool(const Workload& workload, const std::string& path, const std::string& svg) {
  const auto trace = tarn::ReadTrace(path);
  if (!trace.ok()) return;
  std::cout << "\n## Block hits of one global pool, by its size (%)\n\n"
               "| M tokens | blocks | LRU | learned | 16 simulated nodes, LRU |\n"
               "|---|---|---|---|---|\n";
  Chart chart{.title = "Block hit rate by size of the pool (conversation trace)",
              .x_label = "tokens of KV in the pool",
              .y_label = "% of block references"};
  chart.lines = {{.name = "one pool, LRU", .color = 0},
                 {.name = "one pool, learned", .color = 2},
                 {.name = "16 nodes, simulated", .color = 1},
                 {.name = "infinite", .dashed = true, .color = 3}};
  for (const double million : {1, 2, 5, 10, 20, 50, 100}) {
    const int pages = static_cast<int>(million * 1e6 / kTraceBlockTokens);
    const double lru =
        100 *
        ReplayThroughTable(*trace, pages, std::make_unique<kvstore::LruPolicy>(pages)).hit_rate;
    const double learned =
        100 *
        ReplayThroughTable(*trace, pages, std::make_unique<kvstore::LearnedPolicy>(pages)).hit_rate;
    // All memory of the paper's 16 nodes together, HBM as small as the longest prompts allow.
    ClusterConfig config = Paper();
    const double block = kTraceBlockTokens * config.model.kv_bytes_per_token();
    config.hbm_bytes_for_kv = 400 * block;
    config.dram_bytes = std::max(0.0, (pages / 16.0 - 400) * block);
    std::string simulated = "–";
    if (pages >= 16 * 400) {
      const double hits = 100 * Summarize(MustRun(workload, config), config.slo).block_hits;
      simulated = absl::StrFormat("%.2f", hits);
      chart.lines[2].points.emplace_back(million * 1e6, hits);
    }
    chart.lines[0].points.emplace_back(million * 1e6, lru);
    chart.lines[1].points.emplace_back(million * 1e6, learned);
    chart.lines[3].points.emplace_back(million * 1e6, 36.64);
    std::cout << absl::StrFormat("| %g | %d | %.2f | %.2f | %s |\n", million, pages, lru, learned,
                                 simulated);
    std::cout.flush();
  }
  if (svg.empty()) return;
  std::ofstream(svg) << ToSvg(chart);
}

// 3. With prefill as the bottleneck (8:8), and with decoding (15:1).
void RunOverload(const Workload& workload, int prefill, int decode) {
  ClusterConfig config = Paper();
  config.prefill_nodes = prefill;
  config.decode_nodes = decode;
  config.slo = {absl::Seconds(10), absl::Milliseconds(100)};
  const double capacity = Capacity(workload, config, 1.5);
  const double rate =
      static_cast<double>(workload.requests.size()) / absl::ToDoubleSeconds(workload.duration());
  std::cout << absl::StrFormat(
      "\n## Overload: %d:%d nodes of the paper's testbed, %.2f requests/s, twice what they serve "
      "within TTFT 10 s, TPOT 100 ms\n\n"
      "| rejection | good/s | good | done | rejected on arrival | after prefill | wasted prefill, "
      "M "
      "tokens | TTFT p90 s |\n|---|---|---|---|---|---|---|---|\n",
      prefill, decode, 2 * capacity * rate);
  const Workload twice = ScaleRate(workload, 2 * capacity);
  for (const auto& [name, rejection] :
       {std::pair{"none: all wait", Rejection::kNever},
        std::pair{"none on arrival; after prefill if no seat", Rejection::kLate},
        std::pair{"by current load", Rejection::kByLoad},
        std::pair{"by prediction (tarn)", Rejection::kByPrediction}}) {
    config.rejection = rejection;
    const RunResult result = MustRun(twice, config);
    const RunSummary s = Summarize(result, config.slo);
    std::cout << absl::StrFormat("| %s | %.2f | %.1f%% | %d | %d | %d | %.1f | %.2f |\n", name,
                                 s.good / absl::ToDoubleSeconds(twice.duration()),
                                 100 * s.good_share, s.done, s.rejected, s.rejected_late,
                                 result.wasted_tokens / 1e6, s.ttft_s.p90);
    std::cout.flush();
  }
}

int Main(int argc, char** argv) {
  CLI::App app("Simulated clusters on the public trace");
  std::string trace = "../shared/traces/conversation_trace.jsonl", svg;
  std::vector<std::string> only;
  app.add_option("trace", trace, "Mooncake's JSON lines")->capture_default_str();
  app.add_option("--only", only, "speed, paper, capacity, pool, overload")->delimiter(',');
  app.add_option("--svg", svg, "where to write a plot of hits over the pool's size");
  CLI11_PARSE(app, argc, argv);
  const auto workload = ReadWorkload(trace);
  if (!workload.ok()) {
    std::cout << "SKIPPED: " << workload.status().message() << "\n";
    return 0;
  }
  const auto wanted = [&only](const char* name) {
    return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
  };
  if (wanted("speed")) RunSpeed(*workload);
  if (wanted("paper")) RunPaper(*workload);
  if (wanted("capacity")) RunCapacity(*workload);
  if (wanted("pool")) RunPool(*workload, trace, svg);
  if (wanted("overload")) {
    RunOverload(*workload, 8, 8);
    RunOverload(*workload, 15, 1);
  }
  return 0;
}

}  // namespace
}  // namespace tarn::sim

int main(int argc, char** argv) { return tarn::sim::Main(argc, argv); }
