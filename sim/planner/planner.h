#pragma once

// Which cluster serves a workload within its limits for the least money. Simulates shapes: splits
// of prefill and decode nodes, coupled nodes, DRAM and SSD for KV. Blocks for as long as that
// takes.

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sim/cluster/config.h"
#include "sim/cluster/result.h"
#include "sim/workload/workload.h"

namespace tarn::sim {

// DRAM and SSD for KV of one node.
struct KvMemory {
  double dram_bytes = 0;
  double ssd_bytes = 0;
};

struct PlanOptions {
  ModelShape model;
  HardwareProfile hardware;
  Slo slo;
  double good_share = 0.9;  // of requests that must be within it
  std::vector<KvMemory> memories;
  int max_nodes = 32;
  // Prices of what a profile's dollars_per_hour does not include.
  double dollars_per_dram_gib_hour = 0;
  double dollars_per_ssd_tib_hour = 0;
  uint64_t seed = 1;
  // Told before each run: how many are done, and which shape is next. May be empty.
  std::function<void(size_t done, const std::string& shape)> progress;
};

struct Shape {
  int prefill_nodes = 0;
  int decode_nodes = 0;
  int coupled_nodes = 0;
  KvMemory memory;

  int nodes() const { return prefill_nodes + decode_nodes + coupled_nodes; }
  std::string ToText() const;
};

struct PlannedShape {
  Shape shape;
  RunSummary summary;
  RoleUse prefill, decode;
  double network_use = 0;
  bool meets = false;
  double dollars_per_hour = 0;
  double dollars_per_million_tokens = 0;  // prompt and answer, of requests that were served
  std::string limit;                      // what gives way first, or what keeps it from the SLO
};

struct Plan {
  std::vector<PlannedShape> shapes;  // in the order tried
  std::optional<size_t> best;        // the cheapest that meets the SLO
  std::string advice;                // for people
};

// INVALID_ARGUMENT: the model does not fit on a node, or there is nothing to plan for.
absl::StatusOr<Plan> MakePlan(const Workload& workload, const PlanOptions& options);

// For people, for programs, and as a picture: share of good requests over price.
std::string PlanTable(const Plan& plan);
std::string PlanJson(const Plan& plan);
std::string PlanSvg(const Plan& plan);

}  // namespace tarn::sim
