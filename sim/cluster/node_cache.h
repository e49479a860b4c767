#pragma once

// What one simulated node holds: the pool's own brain (BlockTable under an eviction policy) for
// each tier, and the announcements to the index. Blocks have no bytes here.
//
// As in the real node, DRAM has a copy of each cached block, and SSD, where there is one, too.
// Thread-compatible; the index outlives it.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "kvstore/core/block_table.h"
#include "kvstore/directory/block_index.h"
#include "sim/cluster/config.h"

namespace tarn::sim {

struct CacheSizes {
  int hbm_pages = 0;
  int dram_pages = 0;
  int ssd_pages = 0;
};

// The HBM pages of one sequence on one node. Give it back with NodeCache::Release.
struct PageHold {
  std::vector<int32_t> pages;  // by block of the prompt
  int reserved = 0;            // promised and not drawn
};

class NodeCache {
 public:
  NodeCache(NodeId node, const CacheSizes& sizes, Eviction eviction, kvstore::BlockIndex* index);

  // Promises HBM pages; false if they are not there now.
  bool Reserve(int pages, PageHold* hold);
  // Draws a page for each key: the cached one, which is used from here on, or a fresh one. Gives
  // the number of leading keys that were cached.
  int Take(std::span<const BlockKey> keys, absl::Time now, PageHold* hold);
  // Whether the page of block `block` was cached already.
  bool Cached(const PageHold& hold, int block) const { return hbm_.cached(hold.pages[block]); }
  // Makes block `block` of the sequence findable, here and in the tiers below.
  void Publish(std::span<const BlockKey> keys, int block, uint32_t new_blocks, absl::Time now,
               const PageHold& hold);
  // Copies a block of another node into the tiers below HBM.
  void Adopt(std::span<const BlockKey> keys, int block, uint32_t new_blocks, absl::Time now);
  void Release(absl::Time now, PageHold* hold);
  // Tells the index what has come and gone since the last call.
  void Announce();

  // The tier below HBM that holds `key`, if one does.
  std::optional<kvstore::Tier> Below(const BlockKey& key) const;

  int hbm_pages() const { return hbm_.pages(); }
  // Promised to sequences, in use or not.
  int hbm_pages_taken() const { return hbm_.held_pages() + hbm_.reserved(); }
  bool idle() const { return hbm_pages_taken() == 0; }

 private:
  void Note(bool added, const BlockKey& key, kvstore::Tier tier, int32_t page);
  void CopyTo(kvstore::BlockTable& table, kvstore::Tier tier, std::span<const BlockKey> keys,
              int block, const kvstore::BlockTraits& traits, absl::Time now);
  // Counts a use of the copies below.
  void UseBelow(const BlockKey& key, absl::Time now);

  const NodeId node_;
  kvstore::BlockIndex* const index_;
  kvstore::BlockTable hbm_, dram_, ssd_;
  std::vector<kvstore::InventoryChange> changes_;  // to announce
};

}  // namespace tarn::sim
