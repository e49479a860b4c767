#pragma once

// The numbered stream of what one node holds: made at the node, applied at the directory.
//
// First a snapshot in parts, then deltas, every message one number higher than the one before. A
// missing number means that something was lost: the receiver asks for a new snapshot and ignores
// what comes before it.
//
// The parts of a snapshot are read when they are sent, and deltas come in between: a block that
// came or went meanwhile is told by its delta, before or after its part, and both orders end alike.
// So nobody holds a copy of a whole inventory, and no loop waits for one. Pure, thread-compatible.

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

// What one message holds at most.
struct InventoryLimits {
  size_t max_changes = 4096;
  size_t max_bytes = size_t{1} << 20;  // about, on the wire
};

// The node's side of one stream.
class InventoryLog {
 public:
  explicit InventoryLog(const InventoryLimits& limits = {}) : limits_(limits) {}

  // The messages of the next part of a snapshot, one at least. With `begin` the snapshot begins:
  // the receiver forgets everything. With `end` it ends.
  std::vector<InventoryBatch> Snapshot(std::vector<InventoryChange> part, bool begin, bool end);
  // Notes a change for the next Flush. Of several of one block the last counts.
  void Record(const InventoryChange& change);
  // What was recorded since, as messages; none if that is nothing.
  std::vector<InventoryBatch> Flush();
  // Forgets what was recorded: a snapshot that begins now has it.
  void DropRecorded();
  bool empty() const { return pending_.empty(); }

 private:
  // Into messages, the last of which may take more.
  void Put(InventoryChange change, std::vector<InventoryBatch>& batches, size_t& bytes);
  InventoryBatch& Next(std::vector<InventoryBatch>& batches);

  InventoryLimits limits_;
  uint64_t sequence_ = 0;
  std::vector<InventoryChange> pending_;
  absl::flat_hash_map<InventoryKey, size_t> position_;  // in pending_
};

// The directory's side of one stream: which messages count. It keeps no blocks.
class InventoryState {
 public:
  enum class Outcome {
    kApplied,       // do as the batch says
    kNeedSnapshot,  // something is missing: ask for a snapshot
    kIgnored,       // waiting for that snapshot
  };
  Outcome Apply(const InventoryBatch& batch);

  // The last number that was applied.
  uint64_t sequence() const { return sequence_; }
  // Whether a snapshot is complete.
  bool complete() const { return complete_; }

 private:
  uint64_t sequence_ = 0;
  bool synced_ = false;  // has seen a snapshot_begin, and every number since
  bool complete_ = false;
  uint64_t unusable_ = 0;  // messages since the gap
};

}  // namespace tarn::kvstore
