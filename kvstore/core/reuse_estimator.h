#pragma once

// Learns how likely a block is used again, by its class and by the time since it was last used.
//
// For each class it estimates the hazard: of the blocks that reached some age unused, the share
// that was used before the next age. From the hazards follows what a page is worth that holds such
// a block: the most uses a second that it can bring from here on, over all times at which one could
// give it up. That is the Gittins index of the page; the thought of ranking blocks by learned reuse
// over the room it costs is that of EVA (Beckmann and Sanchez, "Maximizing cache performance under
// uncertainty", HPCA 2017) and LHD (Beckmann, Chen, Cidon, NSDI 2018).
//
// It watches keys, not pages: a block that was evicted is watched on, so ages that the cache does
// not reach are learned as well. Where there are more keys than it may watch it takes a sample by
// key. Counts fade, so what it knows follows the load.
//
// Pure, thread-compatible, deterministic; bounded by its options.

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// Ages in thirds of an octave from 1/16 s to 29 h; the last bucket has no end.
class AgeScale {
 public:
  static constexpr int kBuckets = 64;
  static int BucketOf(absl::Duration age);
  // The age at which a bucket begins; 0 for the first.
  static absl::Duration Start(int bucket);
};

class ReuseEstimator {
 public:
  struct Options {
    // By class: the group from which it borrows while it has seen little itself. A group borrows
    // from the group before it, and the first from all.
    std::vector<int> group_of_class;
    int watched = 1 << 16;  // keys, at most
    int sample_of = 1;      // one key in so many is watched; a power of two
  };
  explicit ReuseEstimator(Options options);

  // The block of `key` is used.
  void Used(const BlockKey& key, absl::Time now);
  // It is of class `block_class` and unused from now on.
  void Rested(const BlockKey& key, int block_class, absl::Time now);

  // Uses a second that a page with such a block brings at best, as of the last Refresh.
  double Worth(int block_class, int age_bucket) const {
    return worth_[block_class * AgeScale::kBuckets + age_bucket];
  }
  // Works Worth() out anew from what was seen: O(classes x age buckets).
  void Refresh();
  // Rests since the last Refresh.
  int news() const { return news_; }
  int classes() const { return static_cast<int>(options_.group_of_class.size()); }

 private:
  struct Count {
    float reached = 0;  // blocks that came to this age
    float used = 0;     // those of them that were used at this age
  };
  using Hazards = std::array<double, AgeScale::kBuckets>;
  struct Watch {
    BlockKey key;
    absl::Time rested;
    int32_t before = -1;
    int32_t after = -1;
    int16_t block_class = 0;
    int8_t bucket = 0;
  };
  struct List {  // of watches in one bucket, oldest first
    int32_t head = -1;
    int32_t tail = -1;
  };
  bool Watched(const BlockKey& key) const;
  void Append(int32_t watch, int bucket);
  void Unlink(int32_t watch);
  void Drop(int32_t watch);
  int32_t Oldest() const;
  // Moves watches on to the buckets of their ages.
  void Age(absl::Time now);
  void Fade();
  Count* CountsOf(std::vector<Count>* counts, int index) {
    return counts->data() + index * AgeScale::kBuckets;
  }
  void Tell(int block_class, int bucket, float Count::*what, float by);
  Hazards Estimate(const Count* counts, const Hazards& prior) const;
  void SetWorth(int block_class, const Hazards& hazards);

  const Options options_;
  std::vector<Watch> watches_;
  std::vector<int32_t> unused_;  // of watches_
  std::array<List, AgeScale::kBuckets> by_age_;
  absl::flat_hash_map<BlockKey, int32_t> by_key_;
  std::vector<Count> all_, groups_, classes_;  // by age bucket, within group or class
  std::vector<double> worth_;
  int rests_to_fade_;
  absl::Time aged_ = absl::InfinitePast();
  int news_ = 0;
};

}  // namespace tarn::kvstore
