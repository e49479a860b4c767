#include "kvstore/core/fetch_plan.h"

#include <algorithm>
#include <map>

namespace tarn::kvstore {
namespace {

// Gives blocks to sources, each to the one that would have it first.
class Assignment {
 public:
  explicit Assignment(const FetchCosts& costs) : costs_(costs) {}

  void Add(const std::vector<SourceId>& sources) {
    const SourceId* best = nullptr;
    absl::Duration least = absl::InfiniteDuration();
    for (const SourceId& source : sources) {
      absl::Duration time = costs_.fetch(source, blocks_[source] + 1);
      if (best == nullptr || time < least) best = &source, least = time;
    }
    if (least == absl::ZeroDuration()) return;
    ++blocks_[*best];
    until_ = std::max(until_, least);
    ++fetched_;
  }

  absl::Duration until() const { return until_; }
  int fetched() const { return fetched_; }  // that were not in place

 private:
  const FetchCosts& costs_;
  std::map<SourceId, int> blocks_;
  absl::Duration until_;
  int fetched_ = 0;
};

bool InPlace(const std::vector<SourceId>& sources, const FetchCosts& costs) {
  return std::any_of(sources.begin(), sources.end(), [&costs](const SourceId& source) {
    return costs.fetch(source, 1) == absl::ZeroDuration();
  });
}

}  // namespace

FetchPlan PlanFetch(std::span<const std::vector<SourceId>> sources, const FetchCosts& costs) {
  bool known = costs.compute_block > absl::ZeroDuration();
  Assignment assignment(costs);
  // With no block fetched: what is saved, less what it takes.
  absl::Duration best_gain;
  size_t best = 0;
  FetchPlan plan{std::vector<bool>(sources.size()), absl::ZeroDuration(), absl::ZeroDuration()};
  for (size_t i = 0; i < sources.size(); ++i) {
    if (sources[i].empty()) continue;
    assignment.Add(sources[i]);
    absl::Duration worth = assignment.fetched() * costs.compute_block;
    absl::Duration gain = worth - assignment.until();
    if (known && gain < best_gain) continue;
    best_gain = gain;
    best = i + 1;
    plan.expected = assignment.until();
    plan.worth = known ? worth : absl::InfiniteDuration();
  }
  for (size_t i = 0; i < sources.size(); ++i) {
    plan.fetch[i] = !sources[i].empty() && (i < best || InPlace(sources[i], costs));
  }
  return plan;
}

}  // namespace tarn::kvstore
