#pragma once

// What all block stores share: the order of the calls on one slot, bounds, deadlines, what each
// slot holds, and counters. A store is this and a SlotDevice, which moves the bytes.
//
// Owned by shared_ptr: closures on the loop keep it until every `done` has run. Loop-only, but for
// PostFinish.

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/memory/block_header.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "kvstore/tier/block_store.h"

namespace tarn::kvstore {

// One call of a store, on its way.
struct SlotOp {
  enum class Kind : uint8_t { kRead, kWrite, kErase };

  Kind kind = Kind::kRead;
  int32_t slot = -1;
  BlockIdentity identity;     // of the block: to be written, or held
  BlockRecord record;         // of a write
  std::span<std::byte> page;  // a write's is not changed
  absl::Time deadline = absl::InfiniteFuture();
  BlockStore::Done done;

  // True for the first who asks: that one ends the op. Thread-safe.
  bool Claim() { return !claimed_.exchange(true, std::memory_order_acq_rel); }

 private:
  friend class SlotQueue;
  std::atomic<bool> claimed_ = false;
  bool started_ = false;
  TimerId timer_ = 0;
};

class SlotDevice {
 public:
  virtual ~SlotDevice() = default;

  // The turn of a read or write has come: nothing else is under way on its slot, but for reads
  // beside a read. On the loop; does not block. Before the page is touched the device claims the
  // op, on any thread: it has ended already where that fails. Then it ends it, later than this
  // call, by Finish or PostFinish. A write that is not OK leaves nothing in the slot, nor does a
  // read with DATA_LOSS.
  virtual void Start(std::shared_ptr<SlotOp> op) = 0;

  // Nothing is under way on the slot.
  virtual void Erase(int32_t slot) = 0;
};

class SlotQueue : public std::enable_shared_from_this<SlotQueue> {
 public:
  struct Options {
    BlockLayout layout;
    int slots = 0;
    int max_reads = 1024;  // called, and not done
    int max_writes = 256;
  };

  // `loop` outlives the queue, `device` its Close.
  static std::shared_ptr<SlotQueue> Make(const Options& options, EventLoop* loop,
                                         SlotDevice* device);

  // As in BlockStore.
  void Write(int32_t slot, const BlockRecord& record, std::span<const std::byte> page,
             BlockStore::Done done);
  void Read(int32_t slot, const BlockKey& key, std::span<std::byte> page, absl::Time deadline,
            BlockStore::Done done);
  void Erase(int32_t slot);

  // What the slot holds from now on: a block that came by another way than Write.
  void Put(int32_t slot, const BlockIdentity& identity);
  // Null: nothing.
  const BlockIdentity* Held(int32_t slot) const;

  // Ends an op that the device has claimed. `done` runs last: it may destroy the store.
  void Finish(const std::shared_ptr<SlotOp>& op, const absl::Status& status);
  // The same from any thread.
  void PostFinish(std::shared_ptr<SlotOp> op, absl::Status status);

  // Ends what the device has not claimed with CANCELLED, and starts nothing more.
  void Close();
  bool closed() const { return device_ == nullptr; }

  const BlockLayout& layout() const { return options_.layout; }
  int slots() const { return options_.slots; }
  BlockStoreStats stats() const { return stats_; }

 private:
  // Ops on one slot, in order. Exists while there are any.
  struct Lane {
    std::vector<std::shared_ptr<SlotOp>> waiting;
    std::vector<std::shared_ptr<SlotOp>> active;
    bool writing = false;
  };

  SlotQueue(const Options& options, EventLoop* loop, SlotDevice* device);
  void Enqueue(std::shared_ptr<SlotOp> op);
  // Starts what may start on the slot.
  void Advance(int32_t slot);
  void Begin(const std::shared_ptr<SlotOp>& op);
  // Ends an op that never was on its way.
  void Refuse(SlotOp::Kind kind, BlockStore::Done done, absl::Status status);
  void Leave(const std::shared_ptr<SlotOp>& op);
  void Count(SlotOp::Kind kind, const absl::Status& status);
  void CheckCall(int32_t slot, std::span<const std::byte> page) const;

  const Options options_;
  EventLoop* const loop_;
  SlotDevice* device_;  // null when closed
  std::vector<BlockIdentity> held_;
  std::vector<bool> holds_;  // by slot: whether held_ says something
  absl::flat_hash_map<int32_t, Lane> lanes_;
  BlockStoreStats stats_;
};

// OK, or DATA_LOSS: what was read from a slot is not the block that it held.
absl::Status VerifyStored(const BlockLayout& layout, const BlockIdentity& identity,
                          std::span<const std::byte> page);

}  // namespace tarn::kvstore
