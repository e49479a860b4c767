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
// What is held is asked about no more often than this, unless the cluster changes.
constexpr absl::Duration kAskAgain = absl::Milliseconds(5);

const char* Name(NodeRole role) { return role == NodeRole::kPrefill ? "prefill" : "decode"; }

int64_t Milliseconds(double us) { return static_cast<int64_t>(us / 1e3); }

// What each node holds, and the longest prefix held by any. Nodes are asked for in ascending order.
class Holders {
 public:
  explicit Holders(std::span<const kvstore::NodeMatch> matches)
      : next_(matches.begin()), end_(matches.end()) {
    for (const auto& match : matches) longest_ = std::max(longest_, match.blocks);
  }
  Holdings Of(const NodeId& node) {
    while (next_ != end_ && next_->node < node) ++next_;
    Holdings holdings{.anywhere = longest_};
    if (next_ == end_ || next_->node != node) return holdings;
    holdings.local_hbm = next_->hbm_blocks;
    holdings.local = next_->memory_blocks;
    holdings.local_ssd = next_->blocks;
    return holdings;
  }

 private:
  std::span<const kvstore::NodeMatch>::iterator next_;
  const std::span<const kvstore::NodeMatch>::iterator end_;
  int longest_ = 0;
};

// One decision: the same walk for choosing and for explaining.
class Decision {
 public:
  Decision(const RouteRequest& request, const ClusterView& view,
           std::span<const kvstore::NodeMatch> matches, const BlockShape& block, absl::Time now)
      : request_(request), view_(view), matches_(matches), block_(block), now_(now) {}

  Demand PrefillDemand() const {
    return {NodeRole::kPrefill, PagesFor(request_.tokens, block_), request_.avoid_prefill};
  }
  Demand DecodeDemand() const {
    return {NodeRole::kDecode, PagesFor(request_.tokens + request_.max_new_tokens, block_),
            request_.avoid_decode};
  }

  // `visit(id, eligibility, holdings, prediction)` for each node of the demand's role; what cannot
  // be used is judged only, unless `all`.
  template <typename Visit>
  void EachPrefill(bool all, Visit visit) const {
    const Rates prior = PriorRates(view_, NodeRole::kPrefill);
    const double ahead_us = AheadUs(prior);
    Each(PrefillDemand(), all, [&](const auto& id, const auto& node, auto judged, auto& held) {
      PrefillPrediction predicted =
          PredictPrefill(node, RatesOf(node, prior), held, request_.tokens, block_, now_);
      predicted.ahead_us = ahead_us;
      visit(id, judged, held, predicted);
    });
  }
  template <typename Visit>
  void EachDecode(bool all, Visit visit) const {
    const Rates prior = PriorRates(view_, NodeRole::kDecode);
    Each(DecodeDemand(), all, [&](const auto& id, const auto& node, auto judged, auto& held) {
      visit(id, judged, held,
            PredictDecode(node, RatesOf(node, prior), held.local, request_.tokens, block_));
    });
  }

  RouteResult Make(Random* random) const;

 private:
  template <typename Visit>
  void Each(const Demand& demand, bool all, Visit visit) const {
    Holders holders(matches_);
    for (const auto& [id, node] : view_.nodes()) {
      if (node.role() != demand.role) continue;
      const Eligibility judged = Judge(id, node, demand);
      if (!all && judged != Eligibility::kEligible) continue;
      const Holdings held = holders.Of(id);
      visit(id, node, judged, held);
    }
  }
  // How long all prefill nodes together take for what waits in the router.
  double AheadUs(const Rates& prior) const;
  std::variant<PrefillChoice, Refusal> ChoosePrefill(Random* random) const;
  std::variant<DecodeChoice, Refusal> ChooseDecode(Random* random) const;
  Refusal Refuse(const Demand& demand) const;
  // When the first seat of a full decode node will be free, as far as the nodes know.
  absl::Duration NextSeat() const;
  PrefillPrediction LeastPrefill() const;
  std::optional<Refusal> TooSlow(const PrefillChoice& choice) const;
  std::optional<Refusal> TooSlow(const DecodeChoice& choice) const;

  const RouteRequest& request_;
  const ClusterView& view_;
  const std::span<const kvstore::NodeMatch> matches_;
  const BlockShape& block_;
  const absl::Time now_;
};

// The best of `choices`, or one that is as good: an index.
template <typename Choice>
size_t Pick(const std::vector<Choice>& choices, Random* random) {
  size_t best = 0;
  for (size_t i = 1; i < choices.size(); ++i) {
    if (choices[i].second.total_us() < choices[best].second.total_us()) best = i;
  }
  if (random == nullptr) return best;
  const double limit = choices[best].second.total_us() * (1 + kAlike);
  uint64_t alike = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    // Each of n stays the choice with a chance of 1/n.
    if (choices[i].second.total_us() <= limit && random->UniformInt(++alike) == 0) best = i;
  }
  return best;
}

double Decision::AheadUs(const Rates& prior) const {
  if (request_.tokens_ahead <= 0) return 0;
  double tokens_per_us = 0;
  for (const auto& [id, node] : view_.nodes()) {
    if (node.role() != NodeRole::kPrefill || !node.connected() || node.load().draining) continue;
    const double chunk = node.step_tokens();
    const double us = RatesOf(node, prior).step.PredictInSteps(chunk, 0, chunk);
    if (us > 0) tokens_per_us += chunk / us;
  }
  return tokens_per_us > 0 ? static_cast<double>(request_.tokens_ahead) / tokens_per_us : 0;
}

Refusal Decision::Refuse(const Demand& demand) const {
  std::map<Eligibility, int> counts;
  int largest = 0;
  for (const auto& [id, node] : view_.nodes()) {
    if (node.role() != demand.role) continue;
    ++counts[Judge(id, node, demand)];
    largest = std::max(largest, node.load().hbm_pages);
  }
  const std::string role = Name(demand.role);
  if (counts.empty()) {
    return {absl::UnavailableError("there is no " + role + " node"), kRetryWhenAbsent,
            RefusalReason::kNoNode};
  }
  std::string why;
  for (const auto& [eligibility, count] : counts) {
    absl::StrAppend(&why, why.empty() ? "" : ", ", count, " ", router::Name(eligibility));
  }
  if (counts.contains(Eligibility::kFull)) {
    return {absl::ResourceExhaustedError(
                absl::StrCat("no ", role, " node has room for ", demand.pages, " pages: ", why)),
            kRetryWhenFull, RefusalReason::kNoRoom};
  }
  if (counts.contains(Eligibility::kTooSmall) && counts.size() == 1) {
    return {absl::InvalidArgumentError(
                absl::StrCat("the request needs ", demand.pages, " pages of KV; the largest ", role,
                             " node has ", largest, ": shorten the prompt or max_tokens")),
            absl::ZeroDuration(), RefusalReason::kTooLarge};
  }
  return {absl::UnavailableError(absl::StrCat("no ", role, " node can be used: ", why)),
          kRetryWhenAbsent, RefusalReason::kNoNode};
}

std::variant<PrefillChoice, Refusal> Decision::ChoosePrefill(Random* random) const {
  std::vector<std::pair<const NodeId*, PrefillPrediction>> choices;
  choices.reserve(view_.nodes().size());
  EachPrefill(false, [&](const NodeId& id, auto, const auto&, const PrefillPrediction& predicted) {
    choices.emplace_back(&id, predicted);
  });
  if (choices.empty()) return Refuse(PrefillDemand());
  const auto& [id, predicted] = choices[Pick(choices, random)];
  return PrefillChoice{*id, predicted};
}

std::variant<DecodeChoice, Refusal> Decision::ChooseDecode(Random* random) const {
  // Those within the SLO come before all others.
  const double limit = absl::ToDoubleMicroseconds(request_.slo.tpot);
  std::vector<std::pair<const NodeId*, DecodePrediction>> in_time, late;
  EachDecode(false, [&](const NodeId& id, auto, const auto&, const DecodePrediction& predicted) {
    (predicted.step_us <= limit ? in_time : late).emplace_back(&id, predicted);
  });
  const auto& choices = in_time.empty() ? late : in_time;
  const Demand demand = DecodeDemand();
  if (choices.empty()) return Refuse(demand);
  const auto& [id, predicted] = choices[Pick(choices, random)];
  return DecodeChoice{*id, demand.pages, predicted};
}

// Only a measured pace is a reason to refuse.
std::optional<Refusal> Decision::TooSlow(const PrefillChoice& choice) const {
  if (!MeasuredStep(*view_.Find(choice.node)).measured()) return std::nullopt;
  const bool by_slo = request_.slo.ttft < request_.time_left;
  const absl::Duration allowed = by_slo ? request_.slo.ttft : request_.time_left;
  const absl::Duration predicted = absl::Microseconds(choice.predicted.total_us());
  if (predicted <= allowed) return std::nullopt;
  return Refusal{absl::ResourceExhaustedError(absl::StrCat(
                     "the first token is predicted in ", absl::ToInt64Milliseconds(predicted),
                     " ms, and the request", by_slo ? "'s class" : "", " allows ",
                     absl::ToInt64Milliseconds(allowed), " ms")),
                 std::max(predicted - allowed, absl::Milliseconds(100)),
                 by_slo ? RefusalReason::kTtft : RefusalReason::kDeadline};
}

std::optional<Refusal> Decision::TooSlow(const DecodeChoice& choice) const {
  if (!MeasuredStep(*view_.Find(choice.node)).measured()) return std::nullopt;
  const double allowed = absl::ToDoubleMicroseconds(request_.slo.tpot);
  if (choice.predicted.step_us <= allowed) return std::nullopt;
  return Refusal{absl::ResourceExhaustedError(absl::StrCat(
                     "tokens are predicted every ", Milliseconds(choice.predicted.step_us),
                     " ms on the best decode node, and the request's class allows ",
                     Milliseconds(allowed), " ms")),
                 kRetryWhenFull, RefusalReason::kTpot};
}

RouteResult Decision::Make(Random* random) const {
  RouteDecision decision;
  if (request_.wants_decode) {
    auto decode = ChooseDecode(random);
    if (auto* refusal = std::get_if<Refusal>(&decode)) {
      if (refusal->reason != RefusalReason::kNoRoom || !request_.may_wait) return *refusal;
      const absl::Duration seat = NextSeat();
      if (seat > std::min(request_.slo.ttft, request_.time_left)) {
        refusal->retry_after = std::max(refusal->retry_after, seat);
        return *refusal;
      }
      const PrefillPrediction least = LeastPrefill();
      return Hold{std::clamp(seat, kAskAgain, kRetryWhenFull), least.compute_tokens,
                  absl::ToDoubleMicroseconds(seat) + least.total_us()};
    }
    decision.decode = std::get<DecodeChoice>(std::move(decode));
    if (auto refusal = TooSlow(*decision.decode)) return *std::move(refusal);
  }
  auto prefill = ChoosePrefill(random);
  if (auto* refusal = std::get_if<Refusal>(&prefill)) return std::move(*refusal);
  decision.prefill = std::get<PrefillChoice>(std::move(prefill));
  if (auto refusal = TooSlow(decision.prefill)) return *std::move(refusal);
  const absl::Duration queue = absl::Microseconds(decision.prefill.predicted.queue_us);
  if (request_.may_wait && queue > request_.max_node_queue &&
      MeasuredStep(*view_.Find(decision.prefill.node)).measured()) {
    return Hold{std::max(queue - request_.max_node_queue, kAskAgain),
                decision.prefill.predicted.compute_tokens, decision.prefill.predicted.total_us()};
  }
  return decision;
}

absl::Duration Decision::NextSeat() const {
  const Demand demand = DecodeDemand();
  absl::Duration soonest = absl::InfiniteDuration();
  for (const auto& [id, node] : view_.nodes()) {
    if (Judge(id, node, demand) != Eligibility::kFull) continue;
    soonest = std::min(soonest, node.load().next_seat - (now_ - node.reported_at()));
  }
  return std::max(soonest, absl::ZeroDuration());
}

PrefillPrediction Decision::LeastPrefill() const {
  PrefillPrediction least = {.compute_tokens = request_.tokens};
  bool any = false;
  EachPrefill(false, [&](const NodeId&, auto, const auto&, const PrefillPrediction& predicted) {
    if (std::exchange(any, true) && predicted.total_us() >= least.total_us()) return;
    least = predicted;
  });
  return least;
}

}  // namespace

const char* Name(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kNoNode:
      return "no_node";
    case RefusalReason::kNoRoom:
      return "no_room";
    case RefusalReason::kTooLarge:
      return "too_large";
    case RefusalReason::kDeadline:
      return "deadline";
    case RefusalReason::kTtft:
      return "ttft";
    case RefusalReason::kTpot:
      return "tpot";
  }
  return "unknown";
}

RouteResult Choose(const RouteRequest& request, const ClusterView& view,
                   std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                   absl::Time now, Random* random) {
  return Decision(request, view, matches, block, now).Make(random);
}

Explanation Explain(const RouteRequest& request, const ClusterView& view,
                    std::span<const kvstore::NodeMatch> matches, const BlockShape& block,
                    absl::Time now) {
  const Decision decision(request, view, matches, block, now);
  Explanation explanation;
  decision.EachPrefill(true, [&](const NodeId& id, Eligibility judged, const Holdings& held,
                                 const PrefillPrediction& predicted) {
    explanation.prefill.push_back({{id, judged, held}, predicted});
  });
  if (request.wants_decode) {
    decision.EachDecode(true, [&](const NodeId& id, Eligibility judged, const Holdings& held,
                                  const DecodePrediction& predicted) {
      explanation.decode.push_back({{id, judged, held}, predicted});
    });
  }
  explanation.result = decision.Make(nullptr);
  return explanation;
}

}  // namespace tarn::router
