#pragma once

// Copies blocks into a lower tier in the background, a few at a time. When they are wanted there is
// the policy's matter: as soon as they are here (write-through), or before they go (WriteBack).
//
// Copies give way: they hold their source's page while it can be held, and go on without where
// requests need the promise; the store notices if the page was reused meanwhile. When there are
// more wishes than fit, the oldest go: at that length their blocks have most likely left the tier
// above.
//
// Loop-only. Destroy it before its tiers.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "kvstore/client/cache_tier.h"

namespace tarn::kvstore {

struct TierFeederOptions {
  int max_copies = 4;  // at a time
  size_t max_waiting = 1024;
};

struct TierFeederStats {
  int copying = 0, waiting = 0;
  uint64_t copied = 0;
  uint64_t refused = 0;    // by admission
  uint64_t forgotten = 0;  // wishes that were dropped, or whose block had gone
  uint64_t failed = 0;
};

class TierFeeder {
 public:
  // Whether the block in a page of a tier above is worth a place in this one.
  using Admit = std::function<bool(const CacheTier& from, int32_t page)>;
  // A block has arrived there.
  using Copied = std::function<void(const BlockRecord&)>;

  // `from`: tiers in memory that may have a wanted block, best first. All outlive the feeder.
  TierFeeder(const TierFeederOptions& options, EventLoop* loop, CacheTier* to,
             std::vector<CacheTier*> from, Admit admit, Copied copied);
  TierFeeder(const TierFeeder&) = delete;
  TierFeeder& operator=(const TierFeeder&) = delete;
  ~TierFeeder();

  void Want(const BlockRecord& record);
  // Lets go of one page of `tier` that a copy holds. False if there is none.
  bool LetGoOfOne(const CacheTier* tier);

  TierFeederStats Stats() const;

 private:
  struct Copy {
    CacheTier* from = nullptr;
    int32_t page = -1;  // held; -1: it could not be
  };
  void Pump();
  void Start(const BlockRecord& record);
  void OnCopied(uint64_t id, const BlockRecord& record, const absl::Status& status);
  void LetGo(Copy& copy);

  const TierFeederOptions options_;
  EventLoop* const loop_;
  CacheTier* const to_;
  const std::vector<CacheTier*> from_;
  const Admit admit_;
  const Copied copied_;
  std::deque<BlockRecord> waiting_;
  std::map<uint64_t, Copy> copies_;  // oldest first
  uint64_t last_id_ = 0;
  TierFeederStats counters_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
