#pragma once

// A pool over one RDMA port: what a node has, without its servers. In the test's process it pulls;
// in a process of its own it owns a thousand blocks.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/child_process.h"
#include "common/transport/ucx/ucx_transport.h"
#include "kvstore/client/fake_peers.h"
#include "kvstore/client/node_pool.h"

namespace tarn {

// Where an owner's blocks lie, by number.
using BlockPlaces = std::map<uint32_t, kvstore::BlockAddress>;

class PoolOnPort {
 public:
  // How one Acquire ended.
  struct Outcome {
    std::map<absl::StatusCode, int> codes;  // of its blocks
    int damaged = 0;                        // of those that are OK: other bytes than the owner's
    int promises_left = 0;
    int promises = 0;
    absl::Duration took;

    int ok() const;
    // Every block ended, as OK or with one of `others`, and what was not got is still promised.
    void ExpectOkOr(std::initializer_list<absl::StatusCode> others) const;
  };
  // An Acquire that is under way; the pool outlives it.
  class Pull {
   public:
    // Fails the test if it does not end within `limit`.
    Outcome Wait(absl::Duration limit);

   private:
    friend class PoolOnPort;
    void Finish(std::vector<absl::StatusOr<kvstore::AcquiredBlock>> blocks);

    PoolOnPort* pool_ = nullptr;
    uint32_t first_ = 0;
    absl::Time started_;
    kvstore::PageReservation reservation_;               // loop only
    std::unique_ptr<kvstore::NodePool::Ticket> ticket_;  // loop only
    Outcome outcome_;                                    // set before ended_
    Mutex mutex_;
    ConditionVariable changed_;
    bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  };

  PoolOnPort(const std::string& port, int pages);
  ~PoolOnPort();

  // Makes blocks [0, count) and caches them.
  void CacheBlocks(uint32_t count);
  const BlockPlaces& places() const { return places_; }
  PeerAddress address();

  // From now on blocks come from this owner, in a new life.
  void SetOwner(const PeerAddress& address, BlockPlaces places);

  // Starts to acquire blocks [first, first + count) from the owner.
  std::unique_ptr<Pull> Start(uint32_t first, uint32_t count, absl::Duration time);
  // The same, and its end; `time` is the deadline of its reads.
  Outcome Acquire(uint32_t first, uint32_t count, absl::Duration time);

  kvstore::NodePoolStats Stats();
  // Waits, bounded, until `bytes` more have come than now.
  void WaitForBytes(uint64_t bytes);
  // When everything has ended: nothing is held, promised, under way or leaked.
  void ExpectQuiet();

 private:
  void OnLoop(const std::function<void()>& task);

  RealEventLoop loop_{"pool"};
  std::unique_ptr<UcxTransport> transport_;
  kvstore::FakeCluster cluster_;
  std::unique_ptr<kvstore::FakePeers> peers_;  // loop only
  std::unique_ptr<kvstore::NodePool> pool_;    // loop only
  BlockPlaces places_;
  BlockPlaces owner_places_;
  std::string owner_;
  int owners_ = 0;
};

// A process with blocks [0, count) behind `port`, ready to be pulled from.
class BlockOwner {
 public:
  BlockOwner(const std::string& port, uint32_t count);
  // Its address, and where its blocks lie.
  void OfferTo(PoolOnPort& pool) const { pool.SetOwner(address_, places_); }
  void Kill() { process_->Kill(); }

 private:
  std::unique_ptr<ChildProcess> process_;
  PeerAddress address_;
  BlockPlaces places_;
};

// The other side: until the parent has gone. `role` is what BlockOwner started it as.
void RunBlockOwner(Channel& channel, const std::string& role);

}  // namespace tarn
