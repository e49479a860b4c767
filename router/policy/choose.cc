#include "router/policy/choose.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "router/policy/filters.h"

namespace tarn::router {
namespace {

// When a full cluster is worth another try: about the time in which some running answer ends.
constexpr absl::Duration kRetryWhenFull = absl::Seconds(1);
constexpr absl::Duration kRetryWhenAbsent = absl::Seconds(2);

const char* Name(NodeRole role) { return role == NodeRole::kPrefill ? "prefill" : "decode"; }

// What each node holds, and the longest prefix held by any.
class Holders {
 public:
  explicit Holders(std::span<const kvstore::NodeMatch> matches) : matches_(matches) {
    for (const auto& match : matches) longest_ = std::max(longest_, match.blocks);
  }
  Holdings Of(const NodeId& node) const {
    const auto it = std::lower_bound(
        matches_.begin(), matches_.end(), node,
        [](const kvstore::NodeMatch& match, const NodeId& id) { return match.node < id; });
    Holdings holdings{.anywhere = longest_};
    if (it == matches_.end() || it->node != node) return holdings;
    holdings.local_hbm = it->hbm_blocks;
    holdings.local = it->memory_blocks;
    holdings.local_ssd = it->blocks;
    return holdings;
  }

 private:
  const std::span<const kvstore::NodeMatch> matches_;
  int longest_ = 0;
};

Refusal Refuse(const Demand& demand, const ClusterView& view) {
  std::map<Eligibility, int> counts;
  int largest = 0;
  for (const auto& [id, node] : view.nodes()) {
    if (node.role() != demand.role) continue;
    ++counts[Judge(id, node, demand)];
    largest = std::max(largest, node.load().hbm_pages);
  }
  const std::string role = Name(demand.role);
  if (counts.empty()) {
    return {absl::UnavailableError("there is no " + role + " node"), kRetryWhenAbsent};
  }
  std::string why;
  for (const auto& [eligibility, count] : counts) {
    absl::StrAppend(&why, why.empty() ? "" : ", ", count, " ", router::Name(eligibility));
  }
  if (counts.contains(Eligibility::kFull)) {
    return {absl::ResourceExhaustedError(
                absl::StrCat("no ", role, " node has room for ", demand.pages, " pages: ", why)),
            kRetryWhenFull};
  }
  if (counts.contains(Eligibility::kTooSmall) && counts.size() == 1) {
    return {absl::InvalidArgumentError(
                absl::StrCat("the request needs ", demand.pages, " pages of KV; the largest ", role,
                             " node has ", largest, ": shorten the prompt or max_tokens")),
            absl::ZeroDuration()};
  }
  return {absl::UnavailableError(absl::StrCat("no ", role, " node can be used: ", why)),
          kRetryWhenAbsent};
}

std::variant<PrefillChoice, Refusal> ChoosePrefill(const RouteRequest& request,
                                                   const ClusterView& view, const Holders& holders,
                                                   const BlockShape& block, absl::Time now) {
  const Demand demand = {.role = NodeRole::kPrefill,
                         .pages = PagesFor(request.tokens, block),
                         .avoid = request.avoid_prefill};
  const Rates prior = PriorRates(view, NodeRole::kPrefill);
  std::optional<PrefillChoice> best;
  for (const auto& [id, node] : view.nodes()) {
    if (Judge(id, node, demand) != Eligibility::kEligible) continue;
    const PrefillPrediction predicted =
        PredictPrefill(node, RatesOf(node, prior), holders.Of(id), request.tokens, block, now);
    if (best.has_value() && predicted.total_us() >= best->predicted.total_us()) continue;
    best = PrefillChoice{id, predicted};
  }
  if (!best.has_value()) return Refuse(demand, view);
  return *std::move(best);
}

std::variant<DecodeChoice, Refusal> ChooseDecode(const RouteRequest& request,
                                                 const ClusterView& view, const Holders& holders,
                                                 const BlockShape& block) {
  const Demand demand = {.role = NodeRole::kDecode,
                         .pages = PagesFor(request.tokens + request.max_new_tokens, block),
                         .avoid = request.avoid_decode};
  const Rates prior = PriorRates(view, NodeRole::kDecode);
  std::optional<DecodeChoice> best;
  for (const auto& [id, node] : view.nodes()) {
    if (Judge(id, node, demand) != Eligibility::kEligible) continue;
    const DecodePrediction predicted =
        PredictDecode(node, RatesOf(node, prior), holders.Of(id).local, request.tokens, block);
    if (best.has_value() && predicted.total_us() >= best->predicted.total_us()) continue;
    best = DecodeChoice{id, demand.pages, predicted};
  }
  if (!best.has_value()) return Refuse(demand, view);
  return *std::move(best);
}

// Only a measured pace is a reason to refuse.
std::optional<Refusal> TooSlow(const RouteRequest& request, const ClusterView& view,
                               const PrefillChoice& choice) {
  if (view.Find(choice.node)->load().prefill_us_per_token <= 0) return std::nullopt;
  const absl::Duration predicted = absl::Microseconds(choice.predicted.total_us());
  if (predicted <= request.time_left) return std::nullopt;
  return Refusal{
      absl::ResourceExhaustedError(absl::StrCat(
          "the first token is predicted in ", absl::ToInt64Milliseconds(predicted),
          " ms, and the request allows ", absl::ToInt64Milliseconds(request.time_left), " ms")),
      std::max(predicted - request.time_left, absl::Milliseconds(100))};
}

}  // namespace

RouteResult Choose(const RouteRequest& request, const ClusterView& view,
                   std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                   absl::Time now) {
  const Holders holders(matches);
  RouteDecision decision;
  if (request.wants_decode) {
    auto decode = ChooseDecode(request, view, holders, block);
    if (auto* refusal = std::get_if<Refusal>(&decode)) return std::move(*refusal);
    decision.decode = std::get<DecodeChoice>(std::move(decode));
  }
  auto prefill = ChoosePrefill(request, view, holders, block, now);
  if (auto* refusal = std::get_if<Refusal>(&prefill)) return std::move(*refusal);
  decision.prefill = std::get<PrefillChoice>(std::move(prefill));
  if (auto refusal = TooSlow(request, view, decision.prefill)) return *std::move(refusal);
  return decision;
}

}  // namespace tarn::router
