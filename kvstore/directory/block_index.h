#pragma once

// Who holds which block: the index that directories and routers keep of all nodes' inventories.
//
// A cache of what nodes said (invariant I5): it can be lost, and it can be wrong; a pull verifies.
// Pure and thread-compatible: apply updates, ask questions. Routers ask on their own loop.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What the index knows of a node besides its blocks.
struct IndexedNode {
  NodeId node;
  Incarnation incarnation;
  std::string rpc_address;
};

// How much of a prompt one node holds.
struct NodeMatch {
  NodeId node;
  int blocks = 0;      // leading keys in any tier
  int hbm_blocks = 0;  // leading keys in HBM
};

class BlockIndex {
 public:
  // Adds a node, or replaces its part when the incarnation is new. Its blocks start empty.
  void Join(const IndexedNode& node);
  // Forgets the node and all its blocks, if it is in this life.
  void Leave(const NodeId& node, Incarnation incarnation);
  // Drops the node's blocks: a snapshot follows. Walks the whole index, so it is for rare events.
  void Clear(const NodeId& node);
  // Unknown nodes are ignored.
  void Apply(const NodeId& node, const InventoryChange& change);

  // For each node that holds keys[0]: how many leading keys it holds. Ordered by NodeId.
  std::vector<NodeMatch> Match(std::span<const BlockKey> keys) const;
  // All places where `key` is, HBM first, then by NodeId; those of `except` left out.
  std::vector<BlockSource> Sources(const BlockKey& key, const NodeId& except = NodeId()) const;

  // How many nodes have `key` in any tier, `except` not counted.
  int HoldersOf(const BlockKey& key, const NodeId& except = NodeId()) const;

  // Calls `visit(key)` for each distinct key, in no order that means anything.
  template <typename Visit>
  void ForEachBlock(Visit visit) const {
    for (const auto& [key, entries] : blocks_) visit(key);
  }

  size_t block_count() const;                 // distinct keys
  size_t BlocksOf(const NodeId& node) const;  // entries: a block in two tiers counts twice

 private:
  struct Entry {
    uint32_t node = 0;  // index in nodes_
    Tier tier = Tier::kHbm;
    BlockAddress address;
  };
  struct Node {
    IndexedNode info;
    size_t blocks = 0;
    bool present = false;
  };
  const Node* Find(const NodeId& node) const;
  void Add(uint32_t number, const InventoryChange& change);
  void Remove(uint32_t number, const InventoryChange& change);

  std::map<NodeId, uint32_t> node_numbers_;
  std::vector<Node> nodes_;
  absl::flat_hash_map<BlockKey, std::vector<Entry>> blocks_;
};

}  // namespace tarn::kvstore
