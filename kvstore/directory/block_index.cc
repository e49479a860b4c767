#include "kvstore/directory/block_index.h"

#include <algorithm>
#include <tuple>

namespace tarn::kvstore {

void BlockIndex::Join(const IndexedNode& node) {
  auto [it, is_new] = node_numbers_.try_emplace(node.node, static_cast<uint32_t>(nodes_.size()));
  if (is_new) nodes_.emplace_back();
  Node& entry = nodes_[it->second];
  if (!is_new && entry.info.incarnation != node.incarnation) Clear(node.node);
  entry.info = node;
  entry.present = true;
}

void BlockIndex::Leave(const NodeId& node, Incarnation incarnation) {
  auto it = node_numbers_.find(node);
  if (it == node_numbers_.end() || nodes_[it->second].info.incarnation != incarnation) return;
  Clear(node);
  nodes_[it->second].present = false;
}

void BlockIndex::Clear(const NodeId& node) {
  auto it = node_numbers_.find(node);
  if (it == node_numbers_.end() || nodes_[it->second].blocks == 0) return;
  uint32_t number = it->second;
  absl::erase_if(blocks_, [number](auto& block) {
    std::erase_if(block.second, [number](const Entry& entry) { return entry.node == number; });
    return block.second.empty();
  });
  nodes_[number].blocks = 0;
}

void BlockIndex::Apply(const NodeId& node, const InventoryChange& change) {
  auto it = node_numbers_.find(node);
  if (it == node_numbers_.end() || !nodes_[it->second].present) return;
  change.added ? Add(it->second, change) : Remove(it->second, change);
}

void BlockIndex::Add(uint32_t number, const InventoryChange& change) {
  std::vector<Entry>& entries = blocks_[change.key];
  for (Entry& entry : entries) {
    if (entry.node != number || entry.tier != change.tier) continue;
    entry.address = change.address;
    return;
  }
  entries.push_back({number, change.tier, change.address});
  ++nodes_[number].blocks;
}

void BlockIndex::Remove(uint32_t number, const InventoryChange& change) {
  auto it = blocks_.find(change.key);
  if (it == blocks_.end()) return;
  nodes_[number].blocks -= std::erase_if(it->second, [&](const Entry& entry) {
    return entry.node == number && entry.tier == change.tier;
  });
  if (it->second.empty()) blocks_.erase(it);
}

std::vector<NodeMatch> BlockIndex::Match(std::span<const BlockKey> keys) const {
  struct Run {
    uint32_t node;
    int blocks = 0;
    int hbm_blocks = 0;
  };
  // Those who hold the first key; each run ends at the first key that its node lacks.
  std::vector<Run> runs;
  for (size_t i = 0; i < keys.size(); ++i) {
    auto it = blocks_.find(keys[i]);
    if (it == blocks_.end()) break;
    int reached = static_cast<int>(i);
    bool any = false;
    for (const Entry& entry : it->second) {
      auto run = std::find_if(runs.begin(), runs.end(),
                              [&](const Run& other) { return other.node == entry.node; });
      if (run == runs.end()) {
        if (i > 0) continue;
        run = runs.insert(runs.end(), {entry.node});
      }
      if (run->blocks == reached) run->blocks = reached + 1;
      if (entry.tier == Tier::kHbm && run->hbm_blocks == reached) run->hbm_blocks = reached + 1;
      any |= run->blocks == reached + 1;
    }
    if (!any) break;
  }
  std::vector<NodeMatch> matches;
  matches.reserve(runs.size());
  for (const Run& run : runs) {
    matches.push_back({nodes_[run.node].info.node, run.blocks, run.hbm_blocks});
  }
  std::sort(matches.begin(), matches.end(),
            [](const NodeMatch& a, const NodeMatch& b) { return a.node < b.node; });
  return matches;
}

std::vector<BlockSource> BlockIndex::Sources(const BlockKey& key, const NodeId& except) const {
  std::vector<BlockSource> sources;
  auto it = blocks_.find(key);
  if (it == blocks_.end()) return sources;
  for (const Entry& entry : it->second) {
    const IndexedNode& info = nodes_[entry.node].info;
    if (info.node == except) continue;
    sources.push_back({info.node, info.incarnation, info.rpc_address, entry.tier, entry.address});
  }
  std::sort(sources.begin(), sources.end(), [](const BlockSource& a, const BlockSource& b) {
    return std::tie(a.tier, a.node) < std::tie(b.tier, b.node);
  });
  return sources;
}

size_t BlockIndex::block_count() const { return blocks_.size(); }

size_t BlockIndex::BlocksOf(const NodeId& node) const {
  const Node* found = Find(node);
  return found == nullptr ? 0 : found->blocks;
}

int BlockIndex::HoldersOf(const BlockKey& key, const NodeId& except) const {
  std::vector<BlockSource> sources = Sources(key, except);
  int holders = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    holders +=
        std::none_of(sources.begin(), sources.begin() + static_cast<int64_t>(i),
                     [&](const BlockSource& other) { return other.node == sources[i].node; });
  }
  return holders;
}

const BlockIndex::Node* BlockIndex::Find(const NodeId& node) const {
  auto it = node_numbers_.find(node);
  return it == node_numbers_.end() ? nullptr : &nodes_[it->second];
}

}  // namespace tarn::kvstore
