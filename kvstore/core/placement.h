#pragma once

// Which stores take a block, and how many of them.
//
// Rendezvous hashing with weights (Thaler and Ravishankar 1998; weights by Schindelhauer and
// Schomaker 2005): every store draws a number for the block from its own name, and the highest
// numbers have it. All who know the same stores agree without a word, and a store that comes or
// goes moves only what it takes or had. Pure functions; equal inputs give equal answers in any
// process.

#include <span>
#include <vector>

#include "common/base/block_key.h"
#include "common/base/ids.h"

namespace tarn::kvstore {

struct StoreView {
  NodeId node;
  double weight = 0;  // its share of the blocks is in proportion; 0 takes none
};

// The weight of a store, from its size and what is free of it. A full store still takes blocks, for
// which it evicts, but fewer. In steps of a factor of two, so that views which differ by a moment
// agree, but at the edge of a step.
double PlacementWeight(int pages, int free_pages);

// Up to `copies` of `stores`, indices into it, the first choice first. The same for any order of
// stores.
std::vector<size_t> ChooseStores(const BlockKey& key, std::span<const StoreView> stores,
                                 int copies);

struct ReplicationOptions {
  double uses_a_second_per_copy = 1;  // what one copy should serve
  int max_copies = 3;
};

// How many stores should have a block that is used so often.
int CopiesFor(double uses_a_second, const ReplicationOptions& options);

}  // namespace tarn::kvstore
