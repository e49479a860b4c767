#include "kvstore/client/tier_pages.h"

#include <utility>

#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "kvstore/core/lru.h"

namespace tarn::kvstore {

absl::StatusOr<std::unique_ptr<TierPages>> TierPages::Create(Tier tier, const BlockLayout& layout,
                                                             int pages, Transport* transport,
                                                             Listener listener) {
  ASSIGN_OR_RETURN(std::unique_ptr<RegisteredMemory> memory,
                   transport->Allocate(layout.page_bytes() * static_cast<size_t>(pages)));
  return std::unique_ptr<TierPages>(
      new TierPages(tier, layout, pages, std::move(memory), std::move(listener)));
}

TierPages::TierPages(Tier tier, const BlockLayout& layout, int pages,
                     std::shared_ptr<RegisteredMemory> memory, Listener listener)
    : tier_(tier),
      memory_(std::move(memory)),
      slab_(memory_->bytes(), layout.page_bytes()),
      listener_(std::move(listener)),
      table_(pages, std::make_unique<LruPolicy>(pages)) {}

int32_t TierPages::Clear(const TakenPage& taken) {
  InvalidateBlock(Bytes(taken.page));
  if (taken.evicted.has_value()) {
    ++evictions_;
    listener_({.added = false, .key = *taken.evicted, .tier = tier_});
  }
  return taken.page;
}

int32_t TierPages::TakeReserved(absl::Time now) { return Clear(table_.TakeReserved(now)); }

std::optional<int32_t> TierPages::TryTake(absl::Time now) {
  std::optional<TakenPage> taken = table_.TryTake(now);
  if (!taken.has_value()) return std::nullopt;
  return Clear(*taken);
}

bool TierPages::Publish(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
                        absl::Time now) {
  if (!table_.Publish(page, key, parent, {}, now)) return false;
  listener_({.added = true, .key = key, .tier = tier_, .address = Address(page)});
  return true;
}

BlockAddress TierPages::Address(int32_t page) const {
  return {memory_->index().value(), slab_.OffsetOf(page), table_.epoch(page)};
}

std::vector<InventoryChange> TierPages::Inventory(int32_t first, int32_t end) const {
  std::vector<InventoryChange> changes;
  for (const CachedBlock& block : table_.Blocks(first, end)) {
    changes.push_back(
        {.added = true, .key = block.key, .tier = tier_, .address = Address(block.page)});
  }
  return changes;
}

}  // namespace tarn::kvstore
