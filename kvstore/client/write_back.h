#pragma once

// Copies the next victims of a tier to the tier below, ahead of their eviction.
//
// What is never evicted is never written. The policy's forecast says who goes next: while fewer
// pages are free than `margin`, so many of the next victims as are missing have a copy below, or
// are on their way. A page is never kept for that: what eviction overtakes is lost to the tiers
// below, and counted.
//
// Loop-only. Destroy it before its tiers and its feeder.

#include <cstdint>
#include <vector>

#include "kvstore/client/cache_tier.h"
#include "kvstore/client/tier_feeder.h"

namespace tarn::kvstore {

class WriteBack {
 public:
  // `below`: the tiers under `from`, the feeder's first.
  WriteBack(int margin, EventLoop* loop, CacheTier* from, std::vector<CacheTier*> below,
            TierFeeder* feeder);
  ~WriteBack() { loop_->CancelTimer(timer_); }

  // A block has come into the tier.
  void OnCame() { LookSoon(); }
  // A block has been evicted from it.
  void OnWent(const BlockKey& key);

  uint64_t overtaken() const { return overtaken_; }

 private:
  void LookSoon();
  // Has the next victims copied.
  void Look();
  void WantCopy(int32_t page);

  const int margin_;
  EventLoop* const loop_;
  CacheTier* const from_;
  const std::vector<CacheTier*> below_;
  TierFeeder* const feeder_;
  // By page: the epoch in which its block was wanted below. Once each: what admission refused
  // would else be asked for again and again.
  std::vector<uint64_t> wanted_;
  TimerId timer_ = 0;
  uint64_t overtaken_ = 0;
};

}  // namespace tarn::kvstore
