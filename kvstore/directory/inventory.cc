#include "kvstore/directory/inventory.h"

#include <utility>

namespace tarn::kvstore {
namespace {

// After a gap the receiver asks again from time to time: the answer may get lost as well.
constexpr uint64_t kAskEvery = 64;

// On the wire, with 8-byte numbers.
size_t BytesOf(const InventoryChange& change) { return 64 + change.traits.tenant.value().size(); }

}  // namespace

InventoryBatch& InventoryLog::Next(std::vector<InventoryBatch>& batches) {
  batches.emplace_back().sequence = ++sequence_;
  return batches.back();
}

void InventoryLog::Put(InventoryChange change, std::vector<InventoryBatch>& batches,
                       size_t& bytes) {
  bool full = batches.empty() ||
              batches.back().adds.size() + batches.back().removes.size() == limits_.max_changes ||
              bytes + BytesOf(change) > limits_.max_bytes;
  if (full) bytes = 0;
  InventoryBatch& batch = full ? Next(batches) : batches.back();
  bytes += BytesOf(change);
  (change.added ? batch.adds : batch.removes).push_back(std::move(change));
}

std::vector<InventoryBatch> InventoryLog::Snapshot(std::vector<InventoryChange> part, bool begin,
                                                   bool end) {
  std::vector<InventoryBatch> batches;
  size_t bytes = 0;
  Next(batches).snapshot_begin = begin;
  for (InventoryChange& block : part) Put(std::move(block), batches, bytes);
  batches.back().snapshot_end = end;
  return batches;
}

void InventoryLog::DropRecorded() {
  pending_.clear();
  position_.clear();
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
  size_t bytes = 0;
  for (InventoryChange& change : pending_) Put(std::move(change), batches, bytes);
  DropRecorded();
  return batches;
}

InventoryState::Outcome InventoryState::Apply(const InventoryBatch& batch) {
  if (batch.snapshot_begin) {
    synced_ = true;
    complete_ = false;
    unusable_ = 0;
  } else if (!synced_ || batch.sequence != sequence_ + 1) {
    synced_ = false;
    return unusable_++ % kAskEvery == 0 ? Outcome::kNeedSnapshot : Outcome::kIgnored;
  }
  sequence_ = batch.sequence;
  complete_ |= batch.snapshot_end;
  return Outcome::kApplied;
}

}  // namespace tarn::kvstore
