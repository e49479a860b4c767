#pragma once

// How long a request would take on a node, from what the nodes measured. Pure.
//
// All in microseconds as doubles: they are sums and products of measured rates, and are compared.

#include <cstdint>

#include "absl/time/time.h"
#include "common/base/step_time.h"
#include "router/policy/cluster_view.h"

namespace tarn::router {

// The unit of KV in this cluster.
struct BlockShape {
  int tokens = 0;
  double bytes = 0;
};

// What holds for a node that has not measured something itself.
struct Rates {
  StepTime step;  // of the node's role
  double pull_bytes_per_us = 0;
  double ssd_read_bytes_per_us = 0;
};

// Where nothing at all was measured: a small model on a CPU node. They only rank nodes until the
// first requests have run.
Rates Unmeasured(NodeRole role);

// Copying from a node's own DRAM tier to its pages: one core's memcpy.
inline constexpr double kLocalCopyBytesPerUs = 10'000;
// What pulling costs before the first byte: handshake done, one round trip, verification.
inline constexpr double kPullStartUs = 200;

// What the node has measured of its steps; not measured() if nothing.
StepTime MeasuredStep(const NodeView& node);
// Means over the nodes of `role` that have measured; Unmeasured where none has.
Rates PriorRates(const ClusterView& view, NodeRole role);
// The node's own measurements, and `prior` for the rest.
Rates RatesOf(const NodeView& node, const Rates& prior);

// How many leading blocks of the prompt are where, seen from one node.
struct Holdings {
  int local_hbm = 0;
  int local = 0;      // in own memory; includes local_hbm
  int local_ssd = 0;  // in any own tier; includes local, or is less where there is no SSD
  int anywhere = 0;   // on the node or elsewhere; includes local
};

// Time to the first token and its parts.
struct PrefillPrediction {
  double ahead_us = 0;  // of what waits in the router before this request
  double queue_us = 0;  // of what waits at the node
  double fetch_us = 0;
  double compute_us = 0;
  int64_t compute_tokens = 0;
  double compute_attended = 0;
  // Leading blocks that the node takes from its own tiers, and those it should pull after them.
  int local_blocks = 0;
  int pull_blocks = 0;
  double total_us() const { return ahead_us + queue_us + fetch_us + compute_us; }
};

// What is on the node's SSD, or on another node, is taken only if that is predicted cheaper than
// computing it.
// `tokens` > 0: length of what is prefilled, of which at least the last token is computed.
PrefillPrediction PredictPrefill(const NodeView& node, const Rates& rates, const Holdings& holdings,
                                 int64_t tokens, const BlockShape& block, absl::Time now);

// What joining a decode node costs: bringing over the blocks that it lacks, then steps.
struct DecodePrediction {
  double handover_us = 0;
  double step_us = 0;  // with this request in the batch: its time between tokens
  // The time of a short answer, by which nodes are compared.
  double total_us() const { return handover_us + kNominalTokens * step_us; }
  static constexpr double kNominalTokens = 64;
};

DecodePrediction PredictDecode(const NodeView& node, const Rates& rates, int local_blocks,
                               int64_t tokens, const BlockShape& block);

}  // namespace tarn::router
