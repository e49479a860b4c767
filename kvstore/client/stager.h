#pragma once

// Brings blocks from this node's device into its memory, where peers can read them.
//
// No peer reads a device of another node: it asks the owner, who reads the block into a page of the
// tier above, where it is cached like any block, and answers with the address. The page is held for
// a moment so that the peer finds it. Reads under way, those who wait, and pages held are bounded,
// and one block is read once however many ask.
//
// Loop-only. Destroy it before its tiers.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kvstore/client/cache_tier.h"
#include "kvstore/client/node_pool.h"

namespace tarn::kvstore {

struct StagerOptions {
  int max_reads = 16;  // at a time
  size_t max_waiting = 1024;
  int max_held = 64;  // pages, after staging
  absl::Duration hold = absl::Seconds(1);
};

struct StagerStats {
  int reading = 0, waiting = 0, held = 0;
  uint64_t staged = 0, failed = 0, refused = 0;
};

class Stager {
 public:
  using Place = NodePool::StagedBlock;
  using Done = NodePool::StageDone;

  // `device`: where blocks are read from. `memory`: tiers that peers can read, the one that takes
  // staged blocks first.
  Stager(const StagerOptions& options, EventLoop* loop, CacheTier* device,
         std::vector<CacheTier*> memory);
  Stager(const Stager&) = delete;
  Stager& operator=(const Stager&) = delete;
  ~Stager();

  // Where the block can be read; at once where memory has it already. NOT_FOUND: it is not here.
  // RESOURCE_EXHAUSTED: too many wait, or every page is held. DEADLINE_EXCEEDED: not read by then.
  void Stage(const BlockKey& key, absl::Time deadline, Done done);

  // Lets go of one page that is held for a peer. False if there is none.
  bool LetGoOfOne();

  StagerStats Stats() const;

 private:
  struct Waiter {
    absl::Time deadline;
    Done done;
  };
  struct Job {
    bool reading = false;
    std::vector<Waiter> waiters;
  };
  struct Held {
    CacheTier* tier = nullptr;
    int32_t page = -1;
    absl::Time until;
  };
  std::optional<Place> InMemory(const BlockKey& key);
  void Pump();
  void Read(const BlockKey& key);
  void OnRead(const BlockKey& key, int32_t page, const BlockRecord& record, absl::Status status);
  void Finish(const BlockKey& key, const absl::StatusOr<Place>& place);
  void Hold(CacheTier* tier, int32_t page);
  void LetGoOfOldest();
  void LetGoOfExpired();

  const StagerOptions options_;
  EventLoop* const loop_;
  CacheTier* const device_;
  const std::vector<CacheTier*> memory_;
  absl::flat_hash_map<BlockKey, Job> jobs_;
  std::deque<BlockKey> queue_;  // jobs that are not reading yet
  std::deque<Held> held_;       // oldest first
  TimerId timer_ = 0;
  int reading_ = 0;
  StagerStats counters_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
