#pragma once

// How often each of the most used blocks is used: what replication goes by.
//
// Space-Saving (Metwally, Agrawal, El Abbadi 2005) over counts that fade with time. What is not
// among the hottest is forgotten; what takes the place of the coldest inherits its count, so no hot
// block is pushed out before it shows. What was inherited is remembered and taken off again: a
// flood of blocks that come once makes none of them look hot. Pure, thread-compatible, bounded.

#include <limits>
#include <utility>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"

namespace tarn::kvstore {

class HotBlocks {
 public:
  struct Options {
    int blocks = 16384;
    absl::Duration memory = absl::Minutes(1);  // a use counts 1/e after this
  };
  explicit HotBlocks(const Options& options) : options_(options) {}

  void Used(const BlockKey& key, absl::Time now);
  // As far as it was seen, so at least; 0 for a block that is not among the hottest.
  double UsesPerSecond(const BlockKey& key, absl::Time now) const;

 private:
  // log(count) + time / memory: as counts fade alike, this stays what it is between uses.
  double HeatOf(double count, absl::Time now) const;
  double CountOf(double heat, absl::Time now) const;

  struct Entry {
    double heat = 0;
    double inherited = -std::numeric_limits<double>::infinity();  // the heat of that part
  };
  const Options options_;
  absl::flat_hash_map<BlockKey, Entry> heat_;
  absl::btree_set<std::pair<double, BlockKey>> coldest_;
};

}  // namespace tarn::kvstore
