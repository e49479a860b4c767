// Simulated clusters on the public trace: the tables of docs/performance.md.
//
// By hand: bazel run --config=release //tests/bench:sim_bench -- TRACE [--only paper,…]

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "sim/cluster/cluster.h"
#include "sim/report/chart.h"
#include "sim/workload/workload.h"

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
    std::cout << absl::StrFormat("\nrate x %.2g (%.2f requests/s)\n\n", rate,
                                 rate * workload.requests.size() /
                                     absl::ToDoubleSeconds(workload.duration()));
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
    std::cout << absl::StrFormat("| %s | %.0f | %.1f |\n", name, best,
                                 static_cast<double>(result.events) /
                                     static_cast<double>(workload.requests.size()));
  };
  measure("16 nodes of 8 A800, Llama-3-70B", Paper());
  measure("8 H200, Qwen3-8B", Cluster("Qwen3-8B", "h200", 5, 3));
}

int Main(int argc, char** argv) {
  CLI::App app("Simulated clusters on the public trace");
  std::string trace = "../shared/traces/conversation_trace.jsonl";
  std::vector<std::string> only;
  app.add_option("trace", trace, "Mooncake's JSON lines")->capture_default_str();
  app.add_option("--only", only, "paper, speed")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const auto workload = ReadWorkload(trace);
  if (!workload.ok()) {
    std::cout << "SKIPPED: " << workload.status().message() << "\n";
    return 0;
  }
  const std::vector<std::pair<std::string, void (*)(const Workload&)>> parts = {
      {"speed", RunSpeed}, {"paper", RunPaper}};
  for (const auto& [name, run] : parts) {
    if (only.empty() || std::find(only.begin(), only.end(), name) != only.end()) run(*workload);
  }
  return 0;
}

}  // namespace
}  // namespace tarn::sim

int main(int argc, char** argv) { return tarn::sim::Main(argc, argv); }
