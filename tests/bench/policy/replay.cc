#include "tests/bench/policy/replay.h"

#include <ctime>
#include <limits>
#include <list>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "kvstore/core/block_table.h"

namespace tarn {
namespace {

using kvstore::BlockTable;

double Share(size_t hits, const Trace& trace) {
  return trace.references == 0 ? 0
                               : static_cast<double>(hits) / static_cast<double>(trace.references);
}

// A key for each number. The low bits of real keys look random, and policies may sample by them.
BlockKey KeyOf(uint32_t block) {
  uint64_t word = block + 0x9e3779b97f4a7c15;  // splitmix64
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  word ^= word >> 31;
  BlockKey key;
  std::memcpy(key.bytes.data(), &word, sizeof(word));
  std::memcpy(key.bytes.data() + 8, &block, sizeof(block));
  return key;
}

// One request after the other, against a table.
class Replayer {
 public:
  Replayer(int pages, std::unique_ptr<kvstore::EvictionPolicy> policy)
      : table_(pages, std::move(policy)) {}

  // How many blocks hit.
  size_t Run(const TraceRequest& request) {
    held_.clear();
    size_t hits = 0;
    for (; hits < request.blocks.size(); ++hits) {
      const int32_t page = table_.Find(KeyOf(request.blocks[hits]));
      if (page < 0 || !table_.TryHold(page, request.arrival)) break;
      held_.push_back(page);
    }
    Compute(request, hits);
    for (int32_t page : held_) table_.LetGo(page, request.arrival);
    return hits;
  }

 private:
  void Compute(const TraceRequest& request, size_t hits) {
    kvstore::BlockTraits traits;
    traits.new_blocks = static_cast<uint32_t>(request.blocks.size() - hits);
    for (size_t i = hits; i < request.blocks.size(); ++i) {
      std::optional<kvstore::TakenPage> taken = table_.TryTake(request.arrival);
      if (!taken.has_value()) return;  // longer than the cache
      traits.position = static_cast<uint32_t>(i);
      std::optional<BlockKey> parent;
      if (i > 0) parent = KeyOf(request.blocks[i - 1]);
      table_.Publish(taken->page, KeyOf(request.blocks[i]), parent, traits, request.arrival);
      held_.push_back(taken->page);
    }
  }

  BlockTable table_;
  std::vector<int32_t> held_;
};

}  // namespace

double LruHitRate(const Trace& trace, int pages) {
  std::list<uint32_t> order;  // least recent first
  std::vector<std::optional<std::list<uint32_t>::iterator>> cached(trace.blocks);
  size_t hits = 0;
  for (const TraceRequest& request : trace.requests) {
    for (uint32_t block : request.blocks) {
      if (cached[block].has_value()) {
        ++hits;
        order.splice(order.end(), order, *cached[block]);
        continue;
      }
      if (order.size() == static_cast<size_t>(pages)) {
        cached[order.front()].reset();
        order.pop_front();
      }
      cached[block] = order.insert(order.end(), block);
    }
  }
  return Share(hits, trace);
}

double BeladyHitRate(const Trace& trace, int pages) {
  constexpr size_t kNever = std::numeric_limits<size_t>::max();
  std::vector<uint32_t> references;
  for (const TraceRequest& request : trace.requests) {
    references.insert(references.end(), request.blocks.begin(), request.blocks.end());
  }
  std::vector<size_t> next(references.size()), upcoming(trace.blocks, kNever);
  for (size_t i = references.size(); i-- > 0;) {
    next[i] = std::exchange(upcoming[references[i]], i);
  }
  std::set<std::pair<size_t, uint32_t>> cached;  // by next use
  size_t hits = 0;
  for (size_t i = 0; i < references.size(); ++i) {
    hits += cached.erase({i, references[i]});
    if (next[i] == kNever) continue;
    cached.insert({next[i], references[i]});
    if (cached.size() > static_cast<size_t>(pages)) cached.erase(std::prev(cached.end()));
  }
  return Share(hits, trace);
}

TableReplay ReplayThroughTable(const Trace& trace, int pages,
                               std::unique_ptr<kvstore::EvictionPolicy> policy) {
  Replayer replayer(pages, std::move(policy));
  size_t hits = 0;
  const std::clock_t start = std::clock();
  for (const TraceRequest& request : trace.requests) hits += replayer.Run(request);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  return {Share(hits, trace), seconds * 1e9 / static_cast<double>(trace.references)};
}

}  // namespace tarn
