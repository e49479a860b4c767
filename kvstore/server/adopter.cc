#include "kvstore/server/adopter.h"

#include <utility>
#include <vector>

namespace tarn::kvstore {

void Adopter::Consider(const BlockKey& key) {
  if (!pulls_.contains(key) && queued_.insert(key).second) {
    queue_.push_back(key);
    if (queue_.size() > options_.max_queue) {
      queued_.erase(queue_.front());
      queue_.pop_front();
    }
  }
  Pump();
}

bool Adopter::Wanted(const BlockKey& key) const {
  if (pool_->MatchLocal({&key, 1}) > 0) return false;
  NodePoolStats stats = pool_->Stats();
  std::vector<StoreView> stores = stores_(stats);
  AdmissionCandidate candidate;
  candidate.key = key;
  candidate.holders = index_().HoldersOf(key, options_.self);
  candidate.store_pages = stats.hbm_pages;
  candidate.cached_pages = stats.hbm_cached;
  candidate.stores = stores;
  return policy_->Admit(candidate);
}

void Adopter::Pump() {
  while (!queue_.empty() && pulls_.size() < static_cast<size_t>(options_.max_pulls)) {
    BlockKey key = queue_.front();
    queue_.pop_front();
    queued_.erase(key);
    if (Wanted(key)) StartPull(key);
  }
}

void Adopter::StartPull(const BlockKey& key) {
  absl::Time deadline = loop_->Now() + options_.pull_timeout;
  absl::StatusOr<PageReservation> page = pool_->Reserve(RequestId(), 1, deadline);
  if (!page.ok()) return;
  Pull& pull = pulls_[key];
  pull.page = std::move(*page);
  WantedBlock wanted;
  wanted.key = key;
  wanted.token_count = static_cast<uint32_t>(pool_->layout().block_tokens);
  wanted.sources = index_().Sources(key, options_.self);
  std::vector<WantedBlock> blocks;
  blocks.push_back(std::move(wanted));
  // Whether it came or not: the page is let go, and is cached if it did.
  pull.ticket = pool_->Acquire(pull.page, std::move(blocks), deadline,
                               [this, key](std::vector<absl::StatusOr<AcquiredBlock>> result) {
                                 result.clear();
                                 pulls_.erase(key);
                                 Pump();
                               });
}

}  // namespace tarn::kvstore
