#pragma once

// Which blocks a tier takes: of others (a store adopts them), and of the tier above (what is
// written to SSD). Seams and their policies.
//
// Pure and thread-compatible.

#include <cstdint>
#include <optional>
#include <span>

#include "absl/time/time.h"
#include "kvstore/core/placement.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What is known of a block that some node has just announced.
struct AdmissionCandidate {
  BlockKey key;
  int holders = 0;       // nodes that have it, this store not counted, nor:
  int leaving = 0;       // nodes that have it still, and are about to go
  int store_pages = 0;   // of this store
  int cached_pages = 0;  // in use by blocks it could drop
  // For PlacedAdmission:
  std::span<const StoreView> stores;  // all that could take it, this one among them
  double uses_a_second = 0;           // all over the cluster, where it is known (HotBlocks)
};

enum class AdmissionVerdict : uint8_t {
  kTake,
  kNoRoom,    // this store has no pages
  kGone,      // nobody has it any more
  kEnough,    // enough nodes have it
  kNotPlace,  // it is for other stores
};

class AdmissionPolicy {
 public:
  virtual ~AdmissionPolicy() = default;
  virtual AdmissionVerdict Decide(const AdmissionCandidate& candidate) const = 0;
};

// Takes what would be lost with one node. Each block has its place: the stores that ChooseStores
// names, more of them the more it is used.
class PlacedAdmission : public AdmissionPolicy {
 public:
  // For the store `self`. Takes what has no more holders than it should have copies in stores; who
  // is about to go can be read from, and holds nothing.
  PlacedAdmission(NodeId self, const ReplicationOptions& replication)
      : self_(std::move(self)), replication_(replication) {}
  AdmissionVerdict Decide(const AdmissionCandidate& candidate) const override;

 private:
  const NodeId self_;
  const ReplicationOptions replication_;
};

// A block that could be written to a slower tier.
struct WriteCandidate {
  int64_t bytes = 0;
  bool free_slot = false;
  // Uses a second for the page, as LearnedPolicy::Worth says in either tier. Unknown: counts as
  // worth writing.
  std::optional<double> worth;
  std::optional<double> victim_worth;  // of what would go for it
};

enum class WriteVerdict : uint8_t {
  kWrite,
  kNotWorthIt,  // what would go for it is worth as much
  kTooFast,     // the write rate is spent
};

// Decides what is written to a device that wears and whose writes disturb its reads. While there
// are free slots all is written, as fast as is allowed; then what is worth more than what it
// replaces.
class WriteAdmission {
 public:
  struct Options {
    std::optional<int64_t> bytes_a_second;    // none: as fast as it comes
    absl::Duration burst = absl::Seconds(1);  // so much of the rate may be saved up; a block that
                                              // is larger still passes when all of it is there
    double worth_ratio = 1;  // over the victim's worth: what a write costs besides the slot
  };
  explicit WriteAdmission(const Options& options) : options_(options) {}

  // kWrite counts the bytes as written.
  WriteVerdict Decide(const WriteCandidate& candidate, absl::Time now);

 private:
  bool Spend(int64_t bytes, absl::Time now);

  const Options options_;
  absl::Time filled_ = absl::InfinitePast();
  double saved_ = 0;  // bytes that may be written at `filled_`; below 0 after a large block
};

}  // namespace tarn::kvstore
