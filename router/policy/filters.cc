#include "router/policy/filters.h"

#include <algorithm>

namespace tarn::router {

const char* Name(Eligibility eligibility) {
  switch (eligibility) {
    case Eligibility::kEligible:
      return "eligible";
    case Eligibility::kOtherRole:
      return "of another role";
    case Eligibility::kDisconnected:
      return "disconnected";
    case Eligibility::kDraining:
      return "draining";
    case Eligibility::kAvoided:
      return "tried in vain";
    case Eligibility::kFull:
      return "full";
    case Eligibility::kTooSmall:
      return "too small";
  }
  return "unknown";
}

int PagesFor(int64_t tokens, const BlockShape& block) {
  return static_cast<int>((tokens + block.tokens - 1) / block.tokens);
}

Eligibility Judge(const NodeId& id, const NodeView& node, const Demand& demand) {
  if (node.role() != demand.role) return Eligibility::kOtherRole;
  if (!node.connected()) return Eligibility::kDisconnected;
  if (std::find(demand.avoid.begin(), demand.avoid.end(), id) != demand.avoid.end()) {
    return Eligibility::kAvoided;
  }
  const NodeLoad& load = node.load();
  if (load.draining) return Eligibility::kDraining;
  if (!node.reported() || load.hbm_pages == 0) return Eligibility::kEligible;
  if (demand.pages > load.hbm_pages) return Eligibility::kTooSmall;
  if (demand.role == NodeRole::kPrefill) return Eligibility::kEligible;
  const bool no_pages = node.pages_taken() + demand.pages > load.hbm_pages;
  const bool no_seat = load.max_running > 0 && node.running() >= load.max_running;
  return no_pages || no_seat ? Eligibility::kFull : Eligibility::kEligible;
}

}  // namespace tarn::router
