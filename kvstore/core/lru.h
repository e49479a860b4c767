#pragma once

// Least recently used goes first.

#include <vector>

#include "kvstore/core/eviction.h"
#include "kvstore/core/page_order.h"

namespace tarn::kvstore {

// Order of calls decides what is recent, so equal times do not matter. O(1) a call where blocks
// become evictable in the order of their use, O(log pages) otherwise.
class LruPolicy : public EvictionPolicy {
 public:
  // `pages` is a hint.
  explicit LruPolicy(int pages) { blocks_.reserve(pages); }

  void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
              absl::Time now) override;
  void Touch(int32_t page, absl::Time) override { Use(page); }
  void Rest(int32_t page, absl::Time) override { Use(page); }
  void Allow(int32_t page, Evictable evictable) override;
  void Erase(int32_t page) override { Allow(page, Evictable::kNever); }
  std::optional<int32_t> Victim(absl::Time now) override;
  std::vector<int32_t> NextVictims(int count, absl::Time now) override;

 private:
  struct Block {
    uint64_t last_use = 0;  // in uses counted by uses_
    Evictable evictable = Evictable::kNever;
  };
  void Use(int32_t page);
  PageOrder& OrderOf(Evictable evictable) {
    return evictable == Evictable::kFreely ? freely_ : reluctantly_;
  }

  std::vector<Block> blocks_;  // by page
  PageLinks links_;
  PageOrder freely_{&links_};
  PageOrder reluctantly_{&links_};
  uint64_t uses_ = 0;
};

}  // namespace tarn::kvstore
