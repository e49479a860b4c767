#pragma once

// The numbered stream of what one node holds: made at the node, applied at the directory.
//
// First a snapshot in chunks, then deltas, every message one number higher than the one before. A
// missing number means that something was lost: the receiver asks for a new snapshot and ignores
// what comes before it. Pure and thread-compatible.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// One message. Of each (key, tier) at most one change of each kind; removals are applied first.
struct InventoryBatch {
  uint64_t sequence = 0;
  bool snapshot_begin = false;  // forget everything, then apply
  bool snapshot_end = false;    // what follows are deltas
  std::vector<InventoryChange> removes;
  std::vector<InventoryChange> adds;
};

// A block in a tier: what an inventory is a set of.
struct InventoryKey {
  BlockKey key;
  Tier tier = Tier::kHbm;
  friend bool operator==(const InventoryKey&, const InventoryKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const InventoryKey& k) {
    return H::combine(std::move(h), k.key, k.tier);
  }
};

// The node's side of one stream.
class InventoryLog {
 public:
  // `max_changes`: in one message.
  explicit InventoryLog(size_t max_changes = 4096) : max_changes_(max_changes) {}

  // The messages of a snapshot of `blocks`, at least one. What was recorded before is part of it.
  std::vector<InventoryBatch> Snapshot(const std::vector<InventoryChange>& blocks);
  // Notes a change for the next Flush. Of several of one block the last counts.
  void Record(const InventoryChange& change);
  // What was recorded since, as messages; none if that is nothing.
  std::vector<InventoryBatch> Flush();
  bool empty() const { return pending_.empty(); }

 private:
  InventoryBatch& Next(std::vector<InventoryBatch>& batches);

  size_t max_changes_;
  uint64_t sequence_ = 0;
  std::vector<InventoryChange> pending_;
  absl::flat_hash_map<InventoryKey, size_t> position_;  // in pending_
};

// The directory's side of one stream.
class InventoryState {
 public:
  enum class Outcome {
    kApplied,
    kNeedSnapshot,  // something is missing: ask for a snapshot
    kIgnored,       // waiting for that snapshot
  };
  Outcome Apply(const InventoryBatch& batch);

  // The last number that was applied.
  uint64_t sequence() const { return sequence_; }
  // Whether a snapshot is complete.
  bool complete() const { return complete_; }
  const absl::flat_hash_map<InventoryKey, BlockAddress>& blocks() const { return blocks_; }
  std::vector<InventoryChange> AsChanges() const;

 private:
  uint64_t sequence_ = 0;
  bool synced_ = false;  // has seen a snapshot_begin, and every number since
  bool complete_ = false;
  uint64_t unusable_ = 0;  // messages since the gap
  absl::flat_hash_map<InventoryKey, BlockAddress> blocks_;
};

}  // namespace tarn::kvstore
