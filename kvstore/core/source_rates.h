#pragma once

// What one more block from each source would cost, learned from those that came.
//
// A source is a tier of a node. What is known of it: how fast bytes came over its busy spells
// (RateMeter), how long one block took, and how many are under way from it now. Pure,
// thread-compatible; not measured yet means a guess that errs on the fast side, so that a source is
// tried at all.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>

#include "absl/time/time.h"
#include "kvstore/core/rate_meter.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// A tier of a node; of this node where `node` is empty.
struct SourceId {
  NodeId node;
  Tier tier = Tier::kHbm;
  friend auto operator<=>(const SourceId&, const SourceId&) = default;
};

class SourceRates {
 public:
  // Remembers so many sources; idle ones are forgotten for others, which then start from the guess.
  explicit SourceRates(size_t max_sources = 4096) : max_sources_(max_sources) {}

  void Start(const SourceId& source, absl::Time now);
  // Ends one that was started; `bytes` is 0 where it failed. A failure costs the source its good
  // name for a while: each doubles its expected time, each second takes one back, a success all.
  void Finish(const SourceId& source, uint64_t bytes, absl::Time now);

  // Ends one that nobody wanted any more: says nothing about the source.
  void Cancel(const SourceId& source, absl::Time now);

  // When `blocks` more of `block_bytes` each would be here, all of them, if begun now: behind what
  // is under way from this source.
  absl::Duration Expect(const SourceId& source, int blocks, uint64_t block_bytes,
                        absl::Time now) const;
  // Bytes a microsecond; 0: nothing measured yet.
  double BytesPerUs(const SourceId& source) const;

 private:
  struct Source {
    RateMeter meter;
    int failures = 0;           // not yet forgiven
    absl::Time forgiven_until;  // up to here they have been counted down
  };
  static int FailuresAt(const Source& source, absl::Time now);
  void MakeRoom();

  const size_t max_sources_;
  std::map<SourceId, Source> sources_;
};

}  // namespace tarn::kvstore
