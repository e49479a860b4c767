#pragma once

// Who holds which block: the index that directories and routers keep of all nodes' inventories.
//
// A cache of what nodes said (invariant I5): it can be lost, and it can be wrong; a pull verifies.
// Pure: apply updates, ask questions. Const calls may overlap, others not; none waits for
// all that is known: the longest, a message that moves a piece of the growing table, takes some ms.
// Movable.
//
// Memory: a hard limit in bytes. A block in one place takes 32 bytes when full, and 35 to 44 while
// there is room to grow; a second place takes 32 more, further ones 12 to 24 each. When full, new
// places are refused and counted, and what is there stays: nodes evict and announce it, which makes
// room, while dropping the oldest would cost every entry an age and forget the blocks that are hit
// most. A refused block is a missed hit until its node publishes it again.
//
// Keys are kept whole. An address that is not a multiple of 4 KiB below 16 TiB, in one of 256
// regions, with an epoch below 2^32, is kept whole as well, in a side table of 160 bytes an entry:
// an epoch is never cut, so a wrapped one cannot look like another.
//
// Forgetting a node's life costs nothing at once: its entries stop to count, and are swept a few
// with each update, and by Sweep.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "kvstore/core/types.h"
#include "kvstore/directory/key_table.h"
#include "kvstore/directory/pieces.h"
#include "kvstore/directory/place_lists.h"

namespace tarn::kvstore {

// What the index knows of a node besides its blocks.
struct IndexedNode {
  NodeId node;
  Incarnation incarnation;
  std::string rpc_address;
};

// How much of a prompt one node holds: hbm_blocks <= memory_blocks <= blocks. So the first
// hbm_blocks cost a copy in HBM, those up to memory_blocks one from DRAM at most, the rest SSD.
struct NodeMatch {
  NodeId node;
  int blocks = 0;         // leading keys in any tier
  int hbm_blocks = 0;     // leading keys in HBM
  int memory_blocks = 0;  // leading keys in HBM or DRAM
};

struct BlockIndexOptions {
  size_t max_bytes = size_t{1} << 30;  // at least 4 MiB, at most 16 GiB
  // Of the hash. Another one for each index that is filled by walking another (see KeyTable); a
  // secret one where keys may be forged. Directories and subscribers draw one in place of 0.
  uint64_t seed = 0;
};

struct BlockIndexStats {
  size_t bytes = 0, max_bytes = 0;
  size_t blocks = 0;     // distinct keys, those included that are only in unswept places
  size_t places = 0;     // a block in two tiers counts twice
  size_t unswept = 0;    // places of lives that are over
  uint64_t refused = 0;  // places for which there was no room
};

class BlockIndex {
 public:
  explicit BlockIndex(const BlockIndexOptions& options = {});

  // Adds a node, or replaces its part when the incarnation is new. Its blocks start empty.
  // The index knows 65535 lives at a time, unswept ones included; what is beyond is ignored.
  void Join(const IndexedNode& node);
  // Forgets the node and all its blocks, if it is in this life.
  void Leave(const NodeId& node, Incarnation incarnation);
  // Drops the node's blocks: a snapshot follows.
  void Clear(const NodeId& node);
  // In order. Unknown nodes are ignored. One call for many changes hides the memory's latency.
  void Apply(const NodeId& node, std::span<const InventoryChange> changes);
  void Apply(const NodeId& node, const InventoryChange& change) {
    Apply(node, std::span(&change, 1));
  }

  // Looks at `lines` of memory (3 blocks each, some ns a line) for blocks of lives that are over.
  // Does nothing when there are none; else call it from time to time.
  void Sweep(size_t lines);
  bool sweeping() const { return unswept_ > 0; }

  // For each node that holds keys[0]: how many leading keys it holds. Ordered by NodeId.
  // The first 32 keys are all looked at. Of more, so many that the end of each node's run is found
  // by doubling steps and then halving: exact if a node that holds a key holds those before it in
  // as good a tier (parents are evicted last), else a number n with key n - 1 there and key n not.
  // A hole that was jumped over shows as a key without Sources, or as a failed pull.
  std::vector<NodeMatch> Match(std::span<const BlockKey> keys) const;

  // Places where `key` is, but for those of `reader`, and for those after the first `max`. HBM
  // first; within a tier nodes are in an order that each key and reader draws for itself, the same
  // in every process: so readers who take the first of equals spread over them.
  std::vector<BlockSource> Sources(const BlockKey& key, const NodeId& reader = NodeId(),
                                   size_t max = std::numeric_limits<size_t>::max()) const;
  // How many nodes have `key` in any tier, `except` not counted.
  int HoldersOf(const BlockKey& key, const NodeId& except = NodeId()) const;

  // Visits the next part of all places, of about `max` blocks, as adds; gives the cursor of the
  // part after it, 0 at the end. Start at 0. Updates may come in between: a place that is there
  // all the time is visited once.
  using Visitor = absl::FunctionRef<void(const IndexedNode&, const InventoryChange&)>;
  uint64_t Walk(uint64_t cursor, size_t max, Visitor visit) const;

  BlockIndexStats Stats() const;
  size_t block_count() const { return table_.size(); }  // as in Stats
  size_t BlocksOf(const NodeId& node) const;            // places

 private:
  using Ref = KeyTable::Ref;
  using Number = uint16_t;  // of a node's life
  class Matcher;
  struct Life {
    IndexedNode info;
    uint64_t draw = 0;  // of its NodeId
    size_t places = 0;
    uint32_t rank = 0;  // of its NodeId among those of live ones
    bool live = false;
  };
  // One place of a block; good until the next change.
  struct Place {
    uint32_t* who = nullptr;
    Spot* spot = nullptr;
  };
  struct WideKey {
    BlockKey key;
    Number number = 0;
    Tier tier = Tier::kHbm;
    friend bool operator==(const WideKey&, const WideKey&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const WideKey& wide) {
      return H::combine(std::move(h), wide.key, wide.number, wide.tier);
    }
  };

  Number NewLife(const IndexedNode& node);
  void EndLife(Number number);
  void RankNodes();
  Number NumberOf(const NodeId& node) const;  // 0: unknown

  void Add(Number number, const InventoryChange& change);
  void Remove(Number number, const InventoryChange& change);
  Place PlaceOf(const Ref& ref, Number number, Tier tier);
  Place AddPlace(Ref ref, const BlockKey& key, Number number, Tier tier);
  bool SetAddress(const Place& place, const BlockKey& key, const BlockAddress& address);
  void RemovePlace(const Ref& ref, uint32_t at);
  void ForgetAll(const Ref& ref);
  void Forget(uint32_t who, const BlockKey& key);
  // Takes out places of lives that are over; false if nothing was left.
  bool Clean(const Ref& ref);

  std::span<const uint32_t> WhoOf(const Ref& ref) const;
  const Spot& SpotOf(const Ref& ref, uint32_t at) const;
  BlockAddress AddressOf(const Ref& ref, uint32_t at) const;

  std::unique_ptr<PiecePool> pool_;
  KeyTable table_;
  PlaceLists lists_;
  absl::flat_hash_map<WideKey, BlockAddress> wide_;
  std::map<NodeId, Number> numbers_;
  std::vector<Life> lives_;  // by number; 0 is nobody
  std::vector<Number> free_numbers_;
  size_t places_ = 0;   // of live lives
  size_t unswept_ = 0;  // of the others
  uint64_t refused_ = 0;
};

}  // namespace tarn::kvstore
