#pragma once

// One tier of a node: where its blocks lie, the table of what they are, and the announcement of
// what comes and goes.
//
// The arena, DRAM and SSD are the same to the pool but for what a store of memory can do besides:
// its pages have bytes here, and peers read them. So an arena is a CacheTier whose pages are
// written in place (TakeReserved, Publish); a tier below is filled and read by copies (Put, Get).
//
// Loop-only. Callbacks of Put and Get do not run after the tier has gone.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/pool_observer.h"
#include "kvstore/core/block_table.h"
#include "kvstore/core/eviction.h"
#include "kvstore/core/types.h"
#include "kvstore/tier/block_store.h"
#include "kvstore/tier/slab/slab_store.h"

namespace tarn::kvstore {

class CacheTier {
 public:
  using Listener = std::function<void(const InventoryChange&)>;
  using Done = std::function<void(absl::Status)>;

  // A tier in registered memory, allocated here. RESOURCE_EXHAUSTED says how much was asked for.
  static absl::StatusOr<std::unique_ptr<CacheTier>> InMemory(Tier tier, const BlockLayout& layout,
                                                             int pages,
                                                             std::unique_ptr<EvictionPolicy> policy,
                                                             EventLoop* loop, Transport* transport,
                                                             Listener listener);
  // A tier on a device. Empty until Recover has told what lies there.
  static std::unique_ptr<CacheTier> OnDevice(Tier tier, const BlockLayout& layout,
                                             std::unique_ptr<PersistentBlockStore> store,
                                             std::unique_ptr<EvictionPolicy> policy,
                                             EventLoop* loop, Listener listener);

  // For tiers on a device, once: takes up what the store held in its last life. Each block is
  // announced as it is found. What is put before `done` is refused. Any thread while the loop does
  // not run yet.
  void Recover(Done done);
  // 100 once the tier is whole.
  double percent_recovered() const { return percent_; }

  // Told of copies and uses of this tier's blocks from now on; may be null, outlives the tier.
  void SetObserver(PoolObserver* observer) { observer_ = observer; }

  bool Has(const BlockKey& key) const { return table_.Find(key) >= 0; }
  // On its way here, by Put.
  bool Arriving(const BlockKey& key) const { return arriving_.contains(key); }

  // Copies the sealed block in `page`, which its owner may reuse after InvalidateBlock. False, and
  // `done` does not run: the block is here, or on its way, or all pages are held. `done` says
  // whether it is here now.
  bool Put(const BlockRecord& record, std::span<const std::byte> page, Done done);
  // Copies a block that is here to `page` and verifies it there; restamp before use. `page` must
  // stay until `done`. A block that turns out to be lost or damaged is dropped. RESOURCE_EXHAUSTED:
  // too much is asked of the store.
  void Get(const BlockKey& key, std::span<std::byte> page, absl::Time deadline, Done done);

  // As in BlockTable. The block that was in the page cannot be read any more, and is announced as
  // gone.
  int32_t TakeReserved(absl::Time now);
  std::optional<int32_t> TryTake(absl::Time now);
  // As in BlockTable; stamps the page with its epoch here, and announces the block.
  bool Publish(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
               const BlockTraits& traits, absl::Time now);

  BlockTable& table() { return table_; }
  const BlockTable& table() const { return table_; }
  const BlockStore& store() const { return *store_; }
  Tier tier() const { return tier_; }
  uint64_t evictions() const { return evictions_; }
  uint64_t over_limit() const { return over_limit_; }  // of these: for their tenant had too many
  uint64_t drops() const { return drops_; }            // blocks that were lost or damaged

  // What is known of a block that is here.
  BlockRecord RecordOf(int32_t page) const;
  // Every cached block of pages [first, end), as an added change.
  std::vector<InventoryChange> Inventory(int32_t first, int32_t end) const;

  // For tiers in memory.
  bool in_memory() const { return slab_ != nullptr; }
  std::span<std::byte> Bytes(int32_t page) const { return slab_->Bytes(page); }
  BlockAddress Address(int32_t page) const;
  const std::shared_ptr<RegisteredMemory>& memory() const { return slab_->memory(); }
  // Copies go through the transport, as its own peer, from any of these regions. Before the first.
  void SetLocal(PeerId self, const std::vector<std::shared_ptr<RegisteredMemory>>& regions) {
    slab_->Connect(self, regions);
  }

 private:
  CacheTier(Tier tier, const BlockLayout& layout, std::unique_ptr<BlockStore> store,
            BlockTable table, EventLoop* loop, Listener listener);
  int32_t Clear(const TakenPage& taken);
  void Observe(bool write, absl::Time start);
  void OnPut(int32_t page, const BlockRecord& record, const Done& done, absl::Status status);
  void OnGot(int32_t page, const Done& done, const absl::Status& status);
  void Lose(int32_t page);
  // Drops what tenants have above their limits.
  void Trim();
  void Withdraw(int32_t page, const BlockKey& key);
  void OnRecovered(const Done& done, const absl::Status& status);
  void Restore(const PersistentBlockStore::Recovered& block);
  void Announce(bool added, int32_t page, const BlockKey& key, const BlockTraits& traits);

  const Tier tier_;
  const BlockLayout layout_;
  const std::unique_ptr<BlockStore> store_;
  SlabStore* slab_ = nullptr;               // store_, if it is memory
  PersistentBlockStore* device_ = nullptr;  // store_, if it is not
  EventLoop* const loop_;
  const Listener listener_;
  BlockTable table_;
  PoolObserver* observer_ = nullptr;
  absl::flat_hash_set<BlockKey> arriving_;
  bool recovering_ = false;
  double percent_ = 100;
  uint64_t evictions_ = 0, over_limit_ = 0, drops_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
