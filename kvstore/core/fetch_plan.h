#pragma once

// Fetch or recompute: which cached blocks of a prompt are worth fetching. Pure.
//
// Sources deliver side by side, each its blocks one after another; computing starts when the last
// fetched block is there. So a prefix of the cached blocks is fetched, of the length for which
// fetching it plus computing what follows takes least. A slow tier thus never makes a hit slower
// than a miss as far as its rate is known; where the rate turns out to be wrong, `worth` bounds the
// loss: who waits no longer than that, then computes, needs at most twice the time of a miss.

#include <functional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "kvstore/core/source_rates.h"

namespace tarn::kvstore {

struct FetchCosts {
  // When `blocks` blocks from `source` would be here. Zero for what is in place already.
  std::function<absl::Duration(const SourceId& source, int blocks)> fetch;
  // Computing one block. Zero: not known yet, then everything is fetched.
  absl::Duration compute_block;
};

struct FetchPlan {
  std::vector<bool> fetch;  // by block
  absl::Duration expected;  // until the last fetched block is here
  absl::Duration worth;     // what computing the fetched blocks would take; infinite: not known
};

// `sources`: for each block of the prompt, in order, where it could come from; none: it has to be
// computed. Blocks in place are fetched wherever they are, also behind the prefix: they cost
// nothing.
FetchPlan PlanFetch(std::span<const std::vector<SourceId>> sources, const FetchCosts& costs);

}  // namespace tarn::kvstore
