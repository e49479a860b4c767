#pragma once

// The router's brain: which prefill node and which decode node serve a request. Pure: equal inputs
// give equal choices.
//
// Prefill: the least predicted time to first token, which is queue + fetching what is held
// somewhere + computing the rest. Longest-prefix-first alone would send everything to the one node
// that holds a shared first block; here its queue makes that node unattractive as it fills. Decode:
// the least predicted time of a short answer, by missing blocks, step time and fill. The first
// token does not wait for the decode node, so the best pair is the best of each. Ties: the lower
// NodeId.

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "kvstore/directory/block_index.h"
#include "router/policy/cluster_view.h"
#include "router/policy/predict.h"

namespace tarn::router {

// The features of a request that matter here.
struct RouteRequest {
  int64_t tokens = 0;          // to prefill: the prompt, and after a failover what was generated
  int64_t max_new_tokens = 0;  // still to come
  // Predicted to take longer than this to the first token: refused.
  absl::Duration time_left = absl::InfiniteDuration();
  bool wants_decode = true;  // false: it has a decode node already
  std::vector<NodeId> avoid_prefill, avoid_decode;
};

struct PrefillChoice {
  NodeId node;
  PrefillPrediction predicted;
};

struct DecodeChoice {
  NodeId node;
  int pages = 0;  // for prompt and answer
  DecodePrediction predicted;
};

struct RouteDecision {
  PrefillChoice prefill;
  std::optional<DecodeChoice> decode;  // if wanted
};

// No node can serve the request now. UNAVAILABLE: there is none. RESOURCE_EXHAUSTED: all are full,
// or too slow for `time_left`. INVALID_ARGUMENT: it fits on none, ever.
struct Refusal {
  absl::Status status;
  absl::Duration retry_after;  // zero: no hint
};

using RouteResult = std::variant<RouteDecision, Refusal>;

// `matches`: which nodes hold how many leading blocks of the tokens, ordered by NodeId.
RouteResult Choose(const RouteRequest& request, const ClusterView& view,
                   std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                   absl::Time now);

}  // namespace tarn::router
