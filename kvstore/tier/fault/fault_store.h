#pragma once

// A BlockStore whose calls go wrong as a plan says, over any other. For tests and the simulator:
// what a tier does when its device is slow, fails, or gives back damaged bytes.
//
// Without faults it is the store below, and so passes the same conformance suite. The order of the
// calls on one slot holds, whatever is delayed. Equal plans over equal calls give equal faults.
// Loop-only, as the store below.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "kvstore/tier/block_store.h"
#include "kvstore/tier/queued_store.h"

namespace tarn::kvstore {

// What happens to one call, in this order.
struct StoreFault {
  // Begins later, by a timer of the loop.
  absl::Duration delay = absl::ZeroDuration();
  // Not OK: is not tried and ends with this. A write leaves nothing in its slot.
  absl::Status error;
  // Of a read, once the bytes are there and before they are verified: the page has only so many
  // bytes, modulo its size; this bit is flipped, modulo its size.
  std::optional<uint64_t> cut;
  std::optional<uint64_t> flip_bit;
};

enum class StoreCall : uint8_t { kRead, kWrite };

// Asked once for each read and write, as its turn comes, on the loop.
using StoreFaultPlan = std::function<StoreFault(StoreCall call, int32_t slot)>;

// Chances for each call, in [0, 1], drawn independently.
struct StoreFaultRates {
  double delay = 0;
  absl::Duration max_delay = absl::Milliseconds(100);  // uniform up to this
  double read_error = 0;
  double write_error = 0;
  absl::Status error_status = absl::UnavailableError("injected: the device is gone");
  double short_read = 0;
  double corrupt = 0;  // reads
};

StoreFaultPlan NoStoreFaults();
// Equal seeds and rates give equal faults.
StoreFaultPlan SeededStoreFaults(uint64_t seed, const StoreFaultRates& rates);

struct FaultStoreOptions {
  BlockLayout layout;  // of the pages of the store below
  int max_reads = 1024;
  int max_writes = 256;
};

class FaultBlockStore : public QueuedStore<BlockStore> {
 public:
  // `loop` is the loop of `base`.
  FaultBlockStore(std::unique_ptr<BlockStore> base, const FaultStoreOptions& options,
                  EventLoop* loop, StoreFaultPlan plan);
  ~FaultBlockStore() override;

  // For calls whose turn comes from now on.
  void SetPlan(StoreFaultPlan plan);

  BlockStoreStats Stats() const override;

 private:
  friend class FaultPersistentBlockStore;  // which is this over a store that can be recovered
  class Device;
  FaultBlockStore(const FaultStoreOptions& options, EventLoop* loop,
                  std::shared_ptr<Device> device);

  const std::shared_ptr<Device> device_;
};

class FaultPersistentBlockStore : public PersistentBlockStore {
 public:
  FaultPersistentBlockStore(std::unique_ptr<PersistentBlockStore> base,
                            const FaultStoreOptions& options, EventLoop* loop, StoreFaultPlan plan);

  void SetPlan(StoreFaultPlan plan) { faults_.SetPlan(std::move(plan)); }

  int slots() const override { return faults_.slots(); }
  void Write(int32_t slot, const BlockRecord& record, std::span<const std::byte> page,
             Done done) override {
    faults_.Write(slot, record, page, std::move(done));
  }
  void Read(int32_t slot, const BlockKey& key, std::span<std::byte> page, absl::Time deadline,
            Done done) override {
    faults_.Read(slot, key, page, deadline, std::move(done));
  }
  void Erase(int32_t slot) override { faults_.Erase(slot); }
  BlockStoreStats Stats() const override { return faults_.Stats(); }
  void Recover(OnRecovered recovered, Done done) override;
  void Retain(std::shared_ptr<const void> memory) override { base_->Retain(std::move(memory)); }

 private:
  PersistentBlockStore* const base_;  // owned by faults_
  FaultBlockStore faults_;
};

}  // namespace tarn::kvstore
