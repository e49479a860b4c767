#include "kvstore/client/tier_feeder.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace tarn::kvstore {

TierFeeder::TierFeeder(const TierFeederOptions& options, EventLoop* loop, CacheTier* to,
                       std::vector<CacheTier*> from, Admit admit, Copied copied)
    : options_(options),
      loop_(loop),
      to_(to),
      from_(std::move(from)),
      admit_(std::move(admit)),
      copied_(std::move(copied)) {
  CHECK_GT(options_.max_copies, 0);
}

TierFeeder::~TierFeeder() {
  for (auto& [id, copy] : copies_) LetGo(copy);
}

void TierFeeder::Want(const BlockRecord& record) {
  if (to_->Has(record.key)) return;
  if (waiting_.size() >= std::max<size_t>(1, options_.max_waiting)) {
    waiting_.pop_front();
    ++counters_.forgotten;
  }
  waiting_.push_back(record);
  Pump();
}

void TierFeeder::Pump() {
  while (!waiting_.empty() && copies_.size() < static_cast<size_t>(options_.max_copies)) {
    BlockRecord record = std::move(waiting_.front());
    waiting_.pop_front();
    Start(record);
  }
}

void TierFeeder::Start(const BlockRecord& record) {
  for (CacheTier* from : from_) {
    int32_t page = from->table().Find(record.key);
    if (page < 0) continue;
    if (admit_ && !admit_(*from, page)) {
      ++counters_.refused;
      return;
    }
    uint64_t id = ++last_id_;
    bool begun = to_->Put(
        record, from->Bytes(page),
        [this, alive = std::weak_ptr<bool>(alive_), id, record](const absl::Status& status) {
          if (!alive.expired()) OnCopied(id, record, status);
        });
    if (!begun) break;
    copies_[id] = {from, from->table().TryHold(page, loop_->Now(), HoldFor::kUpkeep) ? page : -1};
    return;
  }
  ++counters_.forgotten;
}

void TierFeeder::OnCopied(uint64_t id, const BlockRecord& record, const absl::Status& status) {
  LetGo(copies_.at(id));
  copies_.erase(id);
  status.ok() ? ++counters_.copied : ++counters_.failed;
  if (status.ok() && copied_) copied_(record);
  Pump();
}

void TierFeeder::LetGo(Copy& copy) {
  if (copy.page >= 0) copy.from->table().LetGo(std::exchange(copy.page, -1), loop_->Now());
}

bool TierFeeder::LetGoOfOne(const CacheTier* tier) {
  auto it = std::find_if(copies_.begin(), copies_.end(), [tier](const auto& entry) {
    return entry.second.from == tier && entry.second.page >= 0;
  });
  if (it == copies_.end()) return false;
  LetGo(it->second);
  return true;
}

TierFeederStats TierFeeder::Stats() const {
  TierFeederStats stats = counters_;
  stats.copying = static_cast<int>(copies_.size());
  stats.waiting = static_cast<int>(waiting_.size());
  return stats;
}

}  // namespace tarn::kvstore
