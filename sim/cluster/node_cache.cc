#include "sim/cluster/node_cache.h"

#include <glog/logging.h>

#include <utility>

#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"

namespace tarn::sim {
namespace {

using kvstore::BlockTable;
using kvstore::Tier;

std::unique_ptr<kvstore::EvictionPolicy> MakePolicy(Eviction eviction, int pages) {
  if (eviction == Eviction::kLearned) return std::make_unique<kvstore::LearnedPolicy>(pages);
  return std::make_unique<kvstore::LruPolicy>(pages);
}

std::optional<BlockKey> ParentOf(std::span<const BlockKey> keys, int block) {
  return block > 0 ? std::optional(keys[block - 1]) : std::nullopt;
}

kvstore::BlockTraits TraitsOf(int block, uint32_t new_blocks) {
  kvstore::BlockTraits traits;
  traits.position = static_cast<uint32_t>(block);
  traits.new_blocks = new_blocks;
  return traits;
}

}  // namespace

NodeCache::NodeCache(NodeId node, const CacheSizes& sizes, Eviction eviction,
                     kvstore::BlockIndex* index)
    : node_(std::move(node)),
      index_(index),
      hbm_(sizes.hbm_pages, MakePolicy(eviction, sizes.hbm_pages)),
      dram_(sizes.dram_pages, MakePolicy(eviction, sizes.dram_pages)),
      ssd_(sizes.ssd_pages, MakePolicy(eviction, sizes.ssd_pages)) {}

void NodeCache::Note(bool added, const BlockKey& key, Tier tier, int32_t page) {
  kvstore::InventoryChange& change = changes_.emplace_back();
  change.added = added;
  change.key = key;
  change.tier = tier;
  if (added) {
    change.address.region = static_cast<uint32_t>(tier);
    change.address.offset = static_cast<uint64_t>(page) << 12;
  }
}

void NodeCache::Announce() {
  if (changes_.empty()) return;
  index_->Apply(node_, changes_);
  changes_.clear();
}

bool NodeCache::Reserve(int pages, PageHold* hold) {
  if (!hbm_.Reserve(pages)) return false;
  hold->reserved = pages;
  return true;
}

int NodeCache::Take(std::span<const BlockKey> keys, absl::Time now, PageHold* hold) {
  const int before = hbm_.reserved();
  int leading = 0;
  hold->pages.reserve(keys.size());
  for (const BlockKey& key : keys) {
    const int32_t cached = hbm_.Find(key);
    if (cached >= 0) {
      hbm_.HoldReserved(cached, now);
      UseBelow(key, now);
      leading += leading == static_cast<int>(hold->pages.size()) ? 1 : 0;
      hold->pages.push_back(cached);
      continue;
    }
    const kvstore::TakenPage taken = hbm_.TakeReserved(now);
    if (taken.evicted.has_value()) Note(false, *taken.evicted, Tier::kHbm, taken.page);
    hold->pages.push_back(taken.page);
  }
  hold->reserved -= before - hbm_.reserved();
  return leading;
}

void NodeCache::Publish(std::span<const BlockKey> keys, int block, uint32_t new_blocks,
                        absl::Time now, const PageHold& hold) {
  const int32_t page = hold.pages[block];
  if (hbm_.cached(page)) return;
  const kvstore::BlockTraits traits = TraitsOf(block, new_blocks);
  if (!hbm_.Publish(page, keys[block], ParentOf(keys, block), traits, now)) return;
  Note(true, keys[block], Tier::kHbm, page);
  Adopt(keys, block, new_blocks, now);
}

void NodeCache::Adopt(std::span<const BlockKey> keys, int block, uint32_t new_blocks,
                      absl::Time now) {
  const kvstore::BlockTraits traits = TraitsOf(block, new_blocks);
  CopyTo(dram_, Tier::kDram, keys, block, traits, now);
  CopyTo(ssd_, Tier::kSsd, keys, block, traits, now);
}

void NodeCache::CopyTo(BlockTable& table, Tier tier, std::span<const BlockKey> keys, int block,
                       const kvstore::BlockTraits& traits, absl::Time now) {
  if (table.pages() == 0) return;
  const int32_t there = table.Find(keys[block]);
  if (there >= 0) {
    if (table.TryHold(there, now)) table.LetGo(there, now);
    return;
  }
  const std::optional<kvstore::TakenPage> taken = table.TryTake(now);
  CHECK(taken.has_value()) << "nothing is ever promised below HBM";
  if (taken->evicted.has_value()) Note(false, *taken->evicted, tier, taken->page);
  CHECK(table.Publish(taken->page, keys[block], ParentOf(keys, block), traits, now));
  table.LetGo(taken->page, now);
  Note(true, keys[block], tier, taken->page);
}

void NodeCache::UseBelow(const BlockKey& key, absl::Time now) {
  for (BlockTable* table : {&dram_, &ssd_}) {
    const int32_t page = table->pages() == 0 ? -1 : table->Find(key);
    if (page >= 0 && table->TryHold(page, now)) table->LetGo(page, now);
  }
}

void NodeCache::Release(absl::Time now, PageHold* hold) {
  for (const int32_t page : hold->pages) hbm_.LetGo(page, now);
  hold->pages.clear();
  hbm_.Unreserve(std::exchange(hold->reserved, 0));
}

std::optional<Tier> NodeCache::Below(const BlockKey& key) const {
  if (dram_.Find(key) >= 0) return Tier::kDram;
  if (ssd_.Find(key) >= 0) return Tier::kSsd;
  return std::nullopt;
}

}  // namespace tarn::sim
