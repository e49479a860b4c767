#pragma once

// One tier of a node: registered memory in pages, the table of what they hold, and the announcement
// of what comes and goes.
//
// Loop-only. The memory may outlive this object: transfers under way keep it.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "common/memory/page_slab.h"
#include "common/transport/transport.h"
#include "kvstore/core/block_table.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

class TierPages {
 public:
  using Listener = std::function<void(const InventoryChange&)>;

  // Allocates the slab. RESOURCE_EXHAUSTED says how much memory was asked for.
  static absl::StatusOr<std::unique_ptr<TierPages>> Create(Tier tier, const BlockLayout& layout,
                                                           int pages, Transport* transport,
                                                           Listener listener);

  // As in BlockTable. The block that was in the page cannot be read any more, and is announced as
  // gone.
  int32_t TakeReserved(absl::Time now);
  std::optional<int32_t> TryTake(absl::Time now);
  // As in BlockTable; announces the block.
  bool Publish(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
               absl::Time now);

  BlockTable& table() { return table_; }
  const BlockTable& table() const { return table_; }
  Tier tier() const { return tier_; }
  uint64_t evictions() const { return evictions_; }

  std::span<std::byte> Bytes(int32_t page) const { return slab_.page(page); }
  BlockAddress Address(int32_t page) const;
  // Every cached block of pages [first, end), as an added change.
  std::vector<InventoryChange> Inventory(int32_t first, int32_t end) const;
  std::vector<InventoryChange> Inventory() const { return Inventory(0, table_.pages()); }
  const std::shared_ptr<RegisteredMemory>& memory() const { return memory_; }

 private:
  TierPages(Tier tier, const BlockLayout& layout, int pages,
            std::shared_ptr<RegisteredMemory> memory, Listener listener);
  int32_t Clear(const TakenPage& taken);

  const Tier tier_;
  const std::shared_ptr<RegisteredMemory> memory_;
  const PageSlab slab_;
  const Listener listener_;
  BlockTable table_;
  uint64_t evictions_ = 0;
};

}  // namespace tarn::kvstore
