#pragma once

// The router's brain: which prefill node and which decode node serve a request, or why none does.
// Pure: equal inputs give equal choices.
//
// Prefill: the least predicted time to first token, which is queue + fetching what is held
// somewhere + computing the rest. Longest-prefix-first alone would send everything to the one node
// that holds a shared first block; here its queue makes that node unattractive as it fills. Decode:
// the least predicted time of a short answer, by missing blocks, step time and fill. The first
// token does not wait for the decode node, so the best pair is the best of each.
//
// What is predicted to miss its time is refused now, before anything is computed for it: the client
// can still go elsewhere, and the nodes work for those who will be served in time. Goodput, answers
// within their time, is what counts.

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"
#include "router/policy/cluster_view.h"
#include "router/policy/filters.h"
#include "router/policy/predict.h"
#include "router/policy/slo.h"

namespace tarn::router {

// The features of a request that matter here.
struct RouteRequest {
  int64_t tokens = 0;          // to prefill: the prompt, and after a failover what was generated
  int64_t max_new_tokens = 0;  // still to come
  // Until the request's deadline. Predicted to take longer than this to the first token: refused.
  absl::Duration time_left = absl::InfiniteDuration();
  Slo slo;                   // from now
  bool wants_decode = true;  // false: it has a decode node already
  std::vector<NodeId> avoid_prefill, avoid_decode;
  // Uncached tokens that wait in the router before this request.
  int64_t tokens_ahead = 0;
  // Whether the request may be held in the router: while every decode node is full, and while every
  // prefill node has work for longer than `max_node_queue`. In the router those that are more
  // urgent, or of tenants who have had less, can still go first.
  bool may_wait = false;
  absl::Duration max_node_queue = absl::InfiniteDuration();
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

enum class RefusalReason : uint8_t {
  kNoNode,    // UNAVAILABLE
  kNoRoom,    // no decode seat now, or in time; RESOURCE_EXHAUSTED, as are those below
  kTooLarge,  // INVALID_ARGUMENT: it fits on no node, ever
  kDeadline,  // predicted to miss its deadline
  kTtft,      // predicted to miss its SLO for the first token
  kTpot,      // predicted to miss its SLO between tokens on every decode node
};

const char* Name(RefusalReason reason);

// No node can serve the request now.
struct Refusal {
  absl::Status status;
  absl::Duration retry_after;  // zero: no hint
  RefusalReason reason = RefusalReason::kNoNode;
};

// Ask again after `wait`, or when the cluster has changed.
struct Hold {
  absl::Duration wait;
  int64_t compute_tokens = 0;  // what the prefill would be now
  double first_token_us = 0;   // predicted, the wait included
};

using RouteResult = std::variant<RouteDecision, Refusal, Hold>;

// Choices within this of the best are as good, for predictions are not better than that.
inline constexpr double kAlike = 0.05;

// `matches`: which nodes hold how many leading blocks of the tokens, ordered by NodeId.
// `random` draws among choices that are as good as the best, so that routers which do not know of
// each other's placements do not all take the same node (herding). Without it the best, and the
// lower NodeId of equals, is taken.
RouteResult Choose(const RouteRequest& request, const ClusterView& view,
                   std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                   absl::Time now, Random* random = nullptr);

// Why a decision is as it is: every node of the two roles with what was predicted for it.
struct Candidate {
  NodeId node;
  Eligibility eligibility = Eligibility::kEligible;
  Holdings holdings;
};
struct PrefillCandidate : Candidate {
  PrefillPrediction predicted;
};
struct DecodeCandidate : Candidate {
  DecodePrediction predicted;
};
struct Explanation {
  std::vector<PrefillCandidate> prefill;
  std::vector<DecodeCandidate> decode;  // empty if none is wanted
  RouteResult result;
};
Explanation Explain(const RouteRequest& request, const ClusterView& view,
                    std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                    absl::Time now);

}  // namespace tarn::router
