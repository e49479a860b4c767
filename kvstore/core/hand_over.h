#pragma once

// What a store that is about to leave offers to the others, and when it has waited long enough.
//
// Nobody writes into another's memory, so a store can only offer: it tells of its blocks once more,
// the most valuable first, and others pull what they choose. So few are on offer at a time that the
// order counts: what is worth most has been moved when time runs out. Pure, thread-compatible.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"

namespace tarn::kvstore {

// A block that would be lost.
struct Heirloom {
  BlockKey key;
  bool in_memory = false;  // goes before what is on a device: it is quicker to take
  double worth = 0;        // as EvictionPolicy::Worth; 0 where the policy does not say
  absl::Time last_use = absl::InfinitePast();
  uint32_t position = 0;  // in its chain: a block without its parents is of no use
};

// Keeps the `max` best of all that are added.
class Heirlooms {
 public:
  explicit Heirlooms(size_t max) : max_(max) {}
  void Add(const Heirloom& block);
  // All that were kept, the best first.
  std::vector<BlockKey> Take();

 private:
  const size_t max_;
  std::vector<Heirloom> kept_;  // up to twice as many
};

struct HandOverOptions {
  size_t window = 256;  // on offer at a time
  // Nothing has been taken for so long: nobody wants what is left. An offer that is older is
  // withdrawn in favour of the next.
  absl::Duration patience = absl::Seconds(2);
  absl::Duration limit = absl::Seconds(20);  // in all
};

class HandOver {
 public:
  enum class End : uint8_t {
    kNotYet,
    kAllOffered,  // and taken, or not for long enough
    kNotWanted,   // nothing was taken for a while
    kOutOfTime,
  };

  // `blocks`: the best first.
  HandOver(const HandOverOptions& options, std::vector<BlockKey> blocks, absl::Time now)
      : options_(options), blocks_(std::move(blocks)), start_(now), progress_(now) {}

  // To be asked from time to time. `elsewhere`: whether somebody who stays has the block now. Gives
  // what is to be offered.
  using Elsewhere = absl::FunctionRef<bool(const BlockKey&)>;
  std::vector<BlockKey> Next(Elsewhere elsewhere, absl::Time now);

  End end() const { return end_; }
  size_t taken() const { return taken_; }
  size_t left() const { return blocks_.size() - taken_; }

 private:
  struct Offer {
    BlockKey key;
    absl::Time made;
  };
  void Settle(Elsewhere elsewhere, absl::Time now);
  End Judge(absl::Time now) const;

  const HandOverOptions options_;
  const std::vector<BlockKey> blocks_;
  const absl::Time start_;
  absl::Time progress_;  // something was taken
  size_t next_ = 0;      // of blocks_, to be offered
  size_t taken_ = 0;
  std::deque<Offer> offers_;
  End end_ = End::kNotYet;
};

}  // namespace tarn::kvstore
