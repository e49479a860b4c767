#pragma once

// A fake PersistentBlockStore: its disk is an object that survives it.
//
// Deterministic over a SimEventLoop. A write that is under way when the store is destroyed still
// reaches the disk, as with a real one.

#include <map>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "kvstore/tier/block_store.h"
#include "kvstore/tier/queued_store.h"

namespace tarn::kvstore {

// What lies in each slot. A test may change it between the store's tasks.
struct MemDisk {
  struct Block {
    BlockRecord record;
    BlockIdentity identity;
    std::vector<uint64_t> page;  // page_bytes() long, aligned as a header must be
    std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(page)); }
  };
  std::map<int32_t, Block> blocks;
};

struct MemStoreOptions {
  BlockLayout layout;
  int slots = 0;
  int max_reads = 1024;
  int max_writes = 256;
  // From the time that an op begins. One op does not delay another.
  absl::Duration read_latency = absl::ZeroDuration();
  absl::Duration write_latency = absl::ZeroDuration();
  size_t recover_batch = 1024;  // blocks told of at once
};

// Loop-only.
class MemStore : public QueuedStore<PersistentBlockStore> {
 public:
  MemStore(const MemStoreOptions& options, EventLoop* loop, std::shared_ptr<MemDisk> disk);
  ~MemStore() override;

  BlockStoreStats Stats() const override;
  void Recover(OnRecovered recovered, Done done) override;
  void Retain(std::shared_ptr<const void>) override {}  // nothing moves after its end

  // While held back, no op begins.
  void SetHeldBack(bool held_back);

 private:
  class Device;
  MemStore(const MemStoreOptions& options, EventLoop* loop, std::shared_ptr<Device> device);

  const MemStoreOptions options_;
  EventLoop* const loop_;
  const std::shared_ptr<Device> device_;
};

}  // namespace tarn::kvstore
