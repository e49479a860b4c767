#pragma once

// Which nodes can take a request at all, and why the others cannot. Pure.

#include <cstdint>
#include <span>
#include <string>

#include "common/base/ids.h"
#include "router/policy/cluster_view.h"
#include "router/policy/predict.h"

namespace tarn::router {

enum class Eligibility : uint8_t {
  kEligible,
  kOtherRole,
  kDisconnected,  // the router's session with it is down
  kDraining,
  kAvoided,   // it has failed this very request
  kFull,      // would fit when something ends
  kTooSmall,  // never fits
};

const char* Name(Eligibility eligibility);

// What a request asks of a node of `role`.
struct Demand {
  NodeRole role = NodeRole::kPrefill;
  int pages = 0;
  std::span<const NodeId> avoid;
};

// The pages of a sequence of `tokens`.
int PagesFor(int64_t tokens, const BlockShape& block);

// A node that has not reported yet is taken to be empty: it refuses for itself.
// Prefill nodes queue what they cannot run, so only decode nodes are ever full.
Eligibility Judge(const NodeId& id, const NodeView& node, const Demand& demand);

}  // namespace tarn::router
