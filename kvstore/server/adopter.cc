#include "kvstore/server/adopter.h"

#include <utility>
#include <vector>

namespace tarn::kvstore {

void Adopter::Consider(const NodeId& node, const InventoryChange& change) {
  const Neighbour about = neighbours_.about(node);
  // Copies in lower tiers and in stores were made for nobody.
  const bool used = !about.store && !about.leaving && change.tier == Tier::kHbm;
  if (used) hot_.Used(change.key, loop_->Now());
  if (stopped_) return;
  if (!pulls_.contains(change.key) && !queued_.contains(change.key)) {
    Enqueue(change, about.leaving);
  }
  Pump();
}

void Adopter::Enqueue(const InventoryChange& change, bool urgent) {
  if (urgent && urgent_.size() >= options_.max_urgent) {
    ++stats_.forgotten;
    return;
  }
  queued_.insert(change.key);
  (urgent ? urgent_ : queue_).push_back({change.key, change.traits});
  if (queue_.size() <= options_.max_queue) return;
  queued_.erase(queue_.front().key);
  queue_.pop_front();
  ++stats_.forgotten;
}

void Adopter::Stop() {
  stopped_ = true;
  urgent_.clear();
  queue_.clear();
  queued_.clear();
}

bool Adopter::Wanted(const BlockKey& key) {
  if (pool_->MatchLocal({&key, 1}) > 0) {
    ++stats_.here;
    return false;
  }
  const NodePoolStats stats = pool_->Stats();
  const std::vector<StoreView> stores = neighbours_.stores(stats);
  const Holders holders = HoldersOf(neighbours_, key, options_.self);
  AdmissionCandidate candidate;
  candidate.key = key;
  candidate.holders = holders.staying;
  candidate.leaving = holders.leaving;
  candidate.store_pages = stats.hbm_pages;
  candidate.cached_pages = stats.hbm_cached;
  candidate.stores = stores;
  candidate.uses_a_second = hot_.UsesPerSecond(key, loop_->Now());
  const AdmissionVerdict verdict = policy_->Decide(candidate);
  ++stats_.verdicts[verdict];
  return verdict == AdmissionVerdict::kTake;
}

void Adopter::Pump() {
  while (pulls_.size() < static_cast<size_t>(options_.max_pulls)) {
    std::deque<Candidate>& from = urgent_.empty() ? queue_ : urgent_;
    if (from.empty()) return;
    const Candidate candidate = std::move(from.front());
    from.pop_front();
    queued_.erase(candidate.key);
    if (Wanted(candidate.key)) StartPull(candidate);
  }
}

void Adopter::StartPull(const Candidate& candidate) {
  const BlockKey& key = candidate.key;
  absl::Time deadline = loop_->Now() + options_.pull_timeout;
  absl::StatusOr<PageReservation> page = pool_->Reserve(RequestId(), 1, deadline);
  if (!page.ok()) {
    ++stats_.failed;
    return;
  }
  Pull& pull = pulls_[key];
  pull.page = std::move(*page);
  WantedBlock wanted;
  wanted.key = key;
  wanted.token_count = static_cast<uint32_t>(pool_->layout().block_tokens);
  wanted.sources = neighbours_.index().Sources(key, options_.self, kPlacesLookedAt);
  wanted.traits = candidate.traits;
  std::vector<WantedBlock> blocks;
  blocks.push_back(std::move(wanted));
  // Whether it came or not: the page is let go, and is cached if it did.
  pull.ticket = pool_->Acquire(pull.page, std::move(blocks), deadline,
                               [this, key](std::vector<absl::StatusOr<AcquiredBlock>> result) {
                                 ++(result[0].ok() ? stats_.taken : stats_.failed);
                                 result.clear();
                                 pulls_.erase(key);
                                 Pump();
                               });
}

}  // namespace tarn::kvstore
