#include "sim/cluster/sim_router.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "router/policy/filters.h"

namespace tarn::sim {

using router::ClusterView;
using router::NodeRole;
using router::NodeView;
using router::PrefillChoice;
using router::PrefillPrediction;
using router::Refusal;

SimRouter::SimRouter(const ClusterConfig& config, const router::BlockShape& block,
                     const kvstore::BlockIndex* index)
    : config_(config), block_(block), index_(index), random_(config.seed) {}

bool SimRouter::seats_first() const {
  return !config_.coupled() &&
         (config_.rejection == Rejection::kNever || config_.rejection == Rejection::kByPrediction);
}

void SimRouter::Match(Request* request) const {
  request->matches = index_->Match(request->keys);
  for (const kvstore::NodeMatch& match : request->matches) {
    request->matched_blocks = std::max(request->matched_blocks, match.blocks);
  }
}

// By what is so at this moment: Mooncake's early rejection. Decode seats are promised to nobody,
// so those that are free now may be gone after prefill.
std::optional<Refusal> SimRouter::Overloaded(absl::Time now) const {
  const router::Rates prior = PriorRates(view_, NodeRole::kPrefill);
  absl::Duration shortest = absl::InfiniteDuration();
  bool seat = config_.coupled();
  for (const auto& [id, node] : view_.nodes()) {
    if (node.role() == NodeRole::kPrefill) {
      const double waiting_us = node.waiting_us(now, RatesOf(node, prior).step);
      shortest = std::min(shortest, absl::Microseconds(waiting_us));
    } else if (node.role() == NodeRole::kDecode) {
      seat |= node.running() < node.load().max_running;
    }
  }
  if (seat && shortest <= config_.slo.ttft) return std::nullopt;
  return Refusal{absl::ResourceExhaustedError(seat ? "all queues are long" : "no decode seat"),
                 absl::ZeroDuration()};
}

router::RouteResult SimRouter::Route(const Request& request, absl::Time now) {
  router::RouteRequest ask = {
      .tokens = request.input(), .max_new_tokens = request.output(), .wants_decode = seats_first()};
  if (config_.rejection == Rejection::kByPrediction) {
    ask.time_left = request.arrival + config_.slo.ttft - now - config_.call_latency;
  }
  if (config_.rejection == Rejection::kByLoad) {
    if (auto refusal = Overloaded(now)) return *std::move(refusal);
  }
  router::RouteResult result = Choose(ask, view_, request.matches, block_, now);
  auto* const decision = std::get_if<router::RouteDecision>(&result);
  if (decision == nullptr || config_.policy == RouterPolicy::kTarn) return result;
  if (auto other = ChooseOtherwise(request, now)) decision->prefill = *std::move(other);
  return result;
}

std::variant<router::DecodeChoice, Refusal> SimRouter::RouteDecode(const Request& request,
                                                                   absl::Time now) const {
  const router::RouteRequest ask = {.tokens = request.input(), .max_new_tokens = request.output()};
  router::RouteResult result = Choose(ask, view_, request.matches, block_, now);
  if (auto* refusal = std::get_if<Refusal>(&result)) return std::move(*refusal);
  return *std::get<router::RouteDecision>(result).decode;
}

std::optional<PrefillChoice> SimRouter::ChooseOtherwise(const Request& request, absl::Time now) {
  const router::Demand demand = {.role = NodeRole::kPrefill,
                                 .pages = router::PagesFor(request.input(), block_)};
  const router::Rates prior = PriorRates(view_, NodeRole::kPrefill);
  struct Candidate {
    PrefillChoice choice;
    std::tuple<double, double> score;  // the least is taken
  };
  std::vector<Candidate> candidates;
  for (const auto& [id, node] : view_.nodes()) {
    if (Judge(id, node, demand) != router::Eligibility::kEligible) continue;
    router::Holdings holdings;
    for (const kvstore::NodeMatch& match : request.matches) {
      if (match.node != id) continue;
      holdings = {match.hbm_blocks, match.memory_blocks, match.blocks, match.memory_blocks};
    }
    const PrefillPrediction predicted =
        PredictPrefill(node, RatesOf(node, prior), holdings, request.input(), block_, now);
    std::tuple<double, double> score;
    if (config_.policy == RouterPolicy::kLeastLoad) score = {predicted.queue_us, 0};
    if (config_.policy == RouterPolicy::kLocalCache) score = {predicted.total_us(), 0};
    if (config_.policy == RouterPolicy::kLongestPrefix) {
      score = {-static_cast<double>(holdings.local_ssd), predicted.queue_us};
    }
    candidates.push_back({{id, predicted}, score});
  }
  if (candidates.empty()) return std::nullopt;
  if (config_.policy == RouterPolicy::kRandom) {
    return candidates[random_.UniformInt(candidates.size())].choice;
  }
  return std::min_element(candidates.begin(), candidates.end(),
                          [](const auto& a, const auto& b) { return a.score < b.score; })
      ->choice;
}

}  // namespace tarn::sim
