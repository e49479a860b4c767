#pragma once

// What a simulated run gave. Plain values.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "sim/cluster/config.h"
#include "sim/cluster/request.h"

namespace tarn::sim {

struct Outcome {
  Request::End end = Request::End::kNone;
  int input_tokens = 0, output_tokens = 0;
  int blocks = 0, matched_blocks = 0;  // of the prompt; leading, known to the index on arrival
  int hbm_tokens = 0, dram_tokens = 0, ssd_tokens = 0, remote_tokens = 0;  // not computed
  absl::Duration ttft, tpot, worst_gap;
  absl::Duration router_wait;     // for a decode seat, part of ttft
  absl::Duration predicted_ttft;  // zero: not predicted

  bool done() const { return end == Request::End::kDone; }
  bool good(const Slo& slo) const { return done() && ttft <= slo.ttft && tpot <= slo.tpot; }
};

// Of all nodes of a kind.
struct RoleUse {
  int nodes = 0;
  double busy = 0;   // share of the run that they spent in steps
  double pages = 0;  // highest share of HBM pages promised, as routers saw it
};

struct RunResult {
  std::vector<Outcome> requests;  // in order of arrival
  absl::Duration duration;        // first arrival to last end
  RoleUse prefill, decode;        // coupled nodes are both
  int seats = 0;                  // of one decode node
  double fetched_bytes = 0, handed_bytes = 0, copied_bytes = 0;
  double network_use = 0;    // highest mean use of one node's network, either direction
  double wasted_tokens = 0;  // computed for requests that were rejected afterwards
  uint64_t events = 0;

  // Everything, a line a request: equal runs give equal bytes.
  std::string ToText() const;
};

struct Spread {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0;
};

// Percentiles interpolate linearly between ranks. Empty: zeros.
Spread SpreadOf(std::vector<double> values);

struct RunSummary {
  int requests = 0, done = 0, rejected = 0, rejected_late = 0, too_long = 0, good = 0;
  double good_share = 0;  // of all
  Spread ttft_s, tpot_ms, worst_gap_ms;
  double block_hits = 0;     // share of block references that the index knew on arrival
  double reused_tokens = 0;  // share of prompt tokens that were not computed
  double hbm_tokens = 0, dram_tokens = 0, ssd_tokens = 0, remote_tokens = 0;  // shares
  double requests_per_s = 0, good_per_s = 0;
  double input_tokens = 0, output_tokens = 0;  // of those done
  double ttft_error = 0;                       // median of |predicted - simulated| / simulated
};
RunSummary Summarize(const RunResult& result, const Slo& slo);

}  // namespace tarn::sim
