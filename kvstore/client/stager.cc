#include "kvstore/client/stager.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tarn::kvstore {

Stager::Stager(const StagerOptions& options, EventLoop* loop, CacheTier* device,
               std::vector<CacheTier*> memory)
    : options_(options), loop_(loop), device_(device), memory_(std::move(memory)) {
  CHECK(!memory_.empty());
}

Stager::~Stager() {
  loop_->CancelTimer(timer_);
  while (!held_.empty()) LetGoOfOldest();
}

std::optional<Stager::Place> Stager::InMemory(const BlockKey& key) {
  for (CacheTier* tier : memory_) {
    int32_t page = tier->table().Find(key);
    if (page < 0) continue;
    Hold(tier, page);
    return Place{tier->tier(), tier->Address(page)};
  }
  return std::nullopt;
}

void Stager::Stage(const BlockKey& key, absl::Time deadline, Done done) {
  if (std::optional<Place> place = InMemory(key)) return done(*place);
  if (auto job = jobs_.find(key); job != jobs_.end()) {
    job->second.waiters.push_back({deadline, std::move(done)});
    return;
  }
  if (!device_->Has(key)) {
    return done(absl::NotFoundError(absl::StrCat("block ", key.ToHex(), " is not here")));
  }
  if (queue_.size() >= options_.max_waiting) {
    ++counters_.refused;
    return done(absl::ResourceExhaustedError(
        absl::StrCat(queue_.size(), " blocks wait for the device already, that is the limit")));
  }
  jobs_[key].waiters.push_back({deadline, std::move(done)});
  queue_.push_back(key);
  Pump();
}

void Stager::Pump() {
  while (!queue_.empty() && reading_ < options_.max_reads) {
    BlockKey key = queue_.front();
    queue_.pop_front();
    absl::Time now = loop_->Now();
    const std::vector<Waiter>& waiters = jobs_.at(key).waiters;
    bool late = std::all_of(waiters.begin(), waiters.end(),
                            [now](const Waiter& waiter) { return waiter.deadline <= now; });
    if (late) {
      Finish(key, absl::DeadlineExceededError("the block was not read from the device in time"));
    } else {
      Read(key);
    }
  }
}

void Stager::Read(const BlockKey& key) {
  CacheTier* into = memory_.front();
  int32_t slot = device_->table().Find(key);
  if (slot < 0) return Finish(key, absl::NotFoundError("the block has left the device"));
  std::optional<int32_t> page = into->TryTake(loop_->Now());
  // Pages held for others are the only ones that we can give back.
  while (!page.has_value() && !held_.empty()) {
    LetGoOfOldest();
    page = into->TryTake(loop_->Now());
  }
  if (!page.has_value()) {
    ++counters_.refused;
    return Finish(key, absl::ResourceExhaustedError("every page of memory is in use"));
  }
  ++reading_;
  jobs_.at(key).reading = true;
  absl::Time deadline = absl::InfinitePast();
  for (const Waiter& waiter : jobs_.at(key).waiters) {
    deadline = std::max(deadline, waiter.deadline);
  }
  device_->Get(key, into->Bytes(*page), deadline,
               [this, alive = std::weak_ptr<bool>(alive_), key, page = *page,
                record = device_->RecordOf(slot)](absl::Status status) {
                 if (!alive.expired()) OnRead(key, page, record, std::move(status));
               });
}

void Stager::OnRead(const BlockKey& key, int32_t page, const BlockRecord& record,
                    absl::Status status) {
  CacheTier* into = memory_.front();
  absl::Time now = loop_->Now();
  --reading_;
  if (status.ok()) {
    into->Publish(page, key, record.parent, record.traits, now);
  }
  into->table().LetGo(page, now);
  std::optional<Place> place = status.ok() ? InMemory(key) : std::nullopt;
  if (place.has_value()) {
    ++counters_.staged;
    Finish(key, *place);
  } else {
    Finish(key, status.ok() ? absl::NotFoundError("the block was evicted at once") : status);
  }
  Pump();
}

void Stager::Finish(const BlockKey& key, const absl::StatusOr<Place>& place) {
  if (!place.ok()) ++counters_.failed;
  std::vector<Waiter> waiters = std::move(jobs_.extract(key).mapped().waiters);
  for (Waiter& waiter : waiters) waiter.done(place);
}

void Stager::Hold(CacheTier* tier, int32_t page) {
  if (!tier->table().TryHold(page, loop_->Now(), HoldFor::kUpkeep)) return;
  held_.push_back({tier, page, loop_->Now() + options_.hold});
  while (held_.size() > static_cast<size_t>(options_.max_held)) LetGoOfOldest();
  if (timer_ == 0) timer_ = loop_->PostAfter(options_.hold, [this] { LetGoOfExpired(); });
}

bool Stager::LetGoOfOne() {
  if (held_.empty()) return false;
  LetGoOfOldest();
  return true;
}

void Stager::LetGoOfOldest() {
  held_.front().tier->table().LetGo(held_.front().page, loop_->Now());
  held_.pop_front();
}

void Stager::LetGoOfExpired() {
  timer_ = 0;
  while (!held_.empty() && held_.front().until <= loop_->Now()) LetGoOfOldest();
  if (held_.empty()) return;
  timer_ = loop_->PostAt(held_.front().until, [this] { LetGoOfExpired(); });
}

StagerStats Stager::Stats() const {
  StagerStats stats = counters_;
  stats.reading = reading_;
  stats.waiting = static_cast<int>(queue_.size());
  stats.held = static_cast<int>(held_.size());
  return stats;
}

}  // namespace tarn::kvstore
