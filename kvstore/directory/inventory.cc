#include "kvstore/directory/inventory.h"

#include <utility>

namespace tarn::kvstore {
namespace {

// After a gap the receiver asks again from time to time: the answer may get lost as well.
constexpr uint64_t kAskEvery = 64;

}  // namespace

InventoryBatch& InventoryLog::Next(std::vector<InventoryBatch>& batches) {
  batches.emplace_back().sequence = ++sequence_;
  return batches.back();
}

std::vector<InventoryBatch> InventoryLog::Snapshot(const std::vector<InventoryChange>& blocks) {
  pending_.clear();
  position_.clear();
  std::vector<InventoryBatch> batches;
  Next(batches).snapshot_begin = true;
  for (const InventoryChange& block : blocks) {
    if (batches.back().adds.size() == max_changes_) Next(batches);
    batches.back().adds.push_back(block);
  }
  batches.back().snapshot_end = true;
  return batches;
}

void InventoryLog::Record(const InventoryChange& change) {
  auto [it, is_new] = position_.try_emplace({change.key, change.tier}, pending_.size());
  if (is_new) {
    pending_.push_back(change);
  } else {
    // An add replaces an older add at the receiver, so what came in between need not be told.
    pending_[it->second] = change;
  }
}

std::vector<InventoryBatch> InventoryLog::Flush() {
  std::vector<InventoryBatch> batches;
  for (InventoryChange& change : pending_) {
    bool full = batches.empty() ||
                batches.back().adds.size() + batches.back().removes.size() == max_changes_;
    InventoryBatch& batch = full ? Next(batches) : batches.back();
    (change.added ? batch.adds : batch.removes).push_back(change);
  }
  pending_.clear();
  position_.clear();
  return batches;
}

InventoryState::Outcome InventoryState::Apply(const InventoryBatch& batch) {
  if (batch.snapshot_begin) {
    blocks_.clear();
    synced_ = true;
    complete_ = false;
    unusable_ = 0;
  } else if (!synced_ || batch.sequence != sequence_ + 1) {
    synced_ = false;
    return unusable_++ % kAskEvery == 0 ? Outcome::kNeedSnapshot : Outcome::kIgnored;
  }
  sequence_ = batch.sequence;
  for (const InventoryChange& change : batch.removes) blocks_.erase({change.key, change.tier});
  for (const InventoryChange& change : batch.adds) {
    blocks_[{change.key, change.tier}] = change.address;
  }
  complete_ |= batch.snapshot_end;
  return Outcome::kApplied;
}

std::vector<InventoryChange> InventoryState::AsChanges() const {
  std::vector<InventoryChange> changes;
  changes.reserve(blocks_.size());
  for (const auto& [block, address] : blocks_) {
    changes.push_back({.added = true, .key = block.key, .tier = block.tier, .address = address});
  }
  return changes;
}

}  // namespace tarn::kvstore
