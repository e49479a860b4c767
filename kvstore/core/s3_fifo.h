#pragma once

// S3-FIFO: a small queue filters what is used once, a main queue keeps what came back.
// Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023.

#include <deque>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvstore/core/eviction.h"
#include "kvstore/core/page_order.h"

namespace tarn::kvstore {

// As in the paper: the small queue has a tenth of the pages; two uses and more there lead to the
// main queue; a ghost queue remembers as many keys as the main queue has pages. What chains add:
// a block that may not go keeps its place in its queue, and is looked at when it may; and one that
// enters the main queue takes the blocks before it along, which could only clog the small queue,
// since they stay as long as it does. O(log pages) a call, amortised.
class S3FifoPolicy : public EvictionPolicy {
 public:
  // `pages` sizes the queues.
  explicit S3FifoPolicy(int pages);

  void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
              absl::Time now) override;
  void Touch(int32_t page, absl::Time now) override;
  void Rest(int32_t, absl::Time) override {}
  void Allow(int32_t page, Evictable evictable) override;
  void Erase(int32_t page) override;
  std::optional<int32_t> Victim(absl::Time now) override;
  std::vector<int32_t> NextVictims(int count, absl::Time now) override;

 private:
  enum class Queue : uint8_t { kNone, kSmall, kMain };
  struct Block {
    uint64_t stamp = 0;  // place in its queue
    uint64_t life = 0;   // unlike that of any other block
    BlockKey key;
    int32_t parent = -1;
    uint64_t parent_life = 0;
    Queue queue = Queue::kNone;
    uint8_t uses = 0;  // since it came to its place, up to kMostUses
    Evictable evictable = Evictable::kNever;
  };
  PageOrder& OrderOf(const Block& block);
  // Puts a block behind all others of the main queue.
  void MoveToMain(int32_t page, int uses);
  // Moves those before `page` in its chain that are in the small queue.
  void TakeParentsAlong(int32_t page);
  void Remember(const BlockKey& key);
  bool TakeGhost(const BlockKey& key);

  const size_t small_target_;
  const size_t ghost_target_;
  std::vector<Block> blocks_;  // by page
  PageLinks links_;
  PageOrder small_{&links_};  // of those that may go freely
  PageOrder main_{&links_};
  PageOrder reluctantly_{&links_};
  size_t small_pages_ = 0;
  uint64_t stamps_ = 0;
  std::deque<std::pair<BlockKey, uint64_t>> ghost_queue_;
  absl::flat_hash_map<BlockKey, uint64_t> ghosts_;  // to the stamp of its entry in the queue
};

}  // namespace tarn::kvstore
