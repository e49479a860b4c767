#pragma once

// Which block goes when a page is needed: the seam for eviction policies.
//
// A policy sees the life of every cached block of one tier: when it came, each use, when it went.
// Its owner (BlockTable) says which blocks may go; the policy says which of those goes first. Pure
// and thread-compatible. Deterministic: equal calls give equal victims. Pages are small numbers;
// what a policy keeps of them grows with the highest it has seen.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

enum class Evictable : uint8_t {
  kNever,        // somebody holds it, or it has a child that could go before it
  kReluctantly,  // nobody holds it, but all its children are held: only when nothing else is left
  kFreely,       // nobody holds it, and it has no child
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // A block came into `page`, for somebody who uses it. It may not go until Allow says so. `parent`
  // is the page of the block before it in the chain, -1 if that is not cached here.
  virtual void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
                      absl::Time now) = 0;
  // Somebody begins to use the block: a hit.
  virtual void Touch(int32_t page, absl::Time now) = 0;
  // The last of its users has finished: its age counts from here, and it is no hit.
  virtual void Rest(int32_t page, absl::Time now) = 0;
  virtual void Allow(int32_t page, Evictable evictable) = 0;
  // The block has gone.
  virtual void Erase(int32_t page) = 0;

  // Who goes next: of kFreely as long as there are any, then of kReluctantly (TenantFairPolicy puts
  // guarantees above that). Nothing if all are kNever. May tidy up inside, so it is not const;
  // asked twice with nothing in between it answers the same.
  virtual std::optional<int32_t> Victim(absl::Time now) = 0;
  // Up to `count` of those that may go freely, likely victims first. A forecast, for copying them
  // elsewhere in time: a parent that may go once its child has gone is not among them yet.
  virtual std::vector<int32_t> NextVictims(int count, absl::Time now) = 0;

  // A block that should go though nobody needs its page: its tenant has more than he may. Its owner
  // drops it (BlockTable::Drop) and asks again.
  virtual std::optional<int32_t> AboveLimit(absl::Time) { return std::nullopt; }
  // Uses a second that the block in `page` brings at best from now on, the unit of WriteAdmission;
  // nothing where the policy does not estimate that.
  virtual std::optional<double> Worth(int32_t, absl::Time) const { return std::nullopt; }
};

}  // namespace tarn::kvstore
