#pragma once

// Block hits of a trace under a policy.

#include <functional>
#include <memory>

#include "kvstore/core/eviction.h"
#include "tests/bench/policy/trace.h"

namespace tarn {

// Share of references that hit, whole trace, from cold.

// LRU over single blocks, chains not looked at: the figure that others count.
double LruHitRate(const Trace& trace, int pages);

// Belady's optimum over single blocks: a miss takes the page whose block is used last again, or
// none where that is the missed block itself. "A study of replacement algorithms for a
// virtual-storage computer", IBM Systems Journal 1966.
double BeladyHitRate(const Trace& trace, int pages);

// What the shipped brain does: a BlockTable under `policy`. A request holds the blocks that match,
// front first and up to the first miss, takes and publishes the rest, and lets all go at once.
struct TableReplay {
  double hit_rate = 0;
  double ns = 0;  // CPU time a reference, of the whole replay
};
TableReplay ReplayThroughTable(const Trace& trace, int pages,
                               std::unique_ptr<kvstore::EvictionPolicy> policy);

}  // namespace tarn
