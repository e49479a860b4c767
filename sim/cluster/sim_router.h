#pragma once

// The router of a simulated cluster: the real view, index and Choose, and the policies that it is
// compared with. Pure but for its random numbers, which come from a seed.

#include <optional>
#include <variant>

#include "absl/time/time.h"
#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"
#include "router/policy/choose.h"
#include "sim/cluster/config.h"
#include "sim/cluster/request.h"

namespace tarn::sim {

class SimRouter {
 public:
  // `index` outlives it; nodes announce to it.
  SimRouter(const ClusterConfig& config, const router::BlockShape& block,
            const kvstore::BlockIndex* index);

  router::ClusterView& view() { return view_; }

  // Looks up what nodes hold of the prompt, and notes it in the request.
  void Match(Request* request) const;

  // For a matched request; without a decode node if the policy seats it after prefill.
  router::RouteResult Route(const Request& request, absl::Time now);
  // A decode node for one that is prefilled.
  std::variant<router::DecodeChoice, router::Refusal> RouteDecode(const Request& request,
                                                                  absl::Time now) const;

 private:
  bool seats_first() const;
  std::optional<router::Refusal> Overloaded(absl::Time now) const;
  std::optional<router::PrefillChoice> ChooseOtherwise(const Request& request, absl::Time now);

  const ClusterConfig config_;
  const router::BlockShape block_;
  const kvstore::BlockIndex* const index_;
  router::ClusterView view_;
  Random random_;
};

}  // namespace tarn::sim
