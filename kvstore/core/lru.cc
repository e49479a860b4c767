#include "kvstore/core/lru.h"

namespace tarn::kvstore {

void LruPolicy::Insert(int32_t page, const BlockKey&, int32_t, const BlockTraits&, absl::Time) {
  if (static_cast<size_t>(page) >= blocks_.size()) blocks_.resize(page + 1);
  links_.Grow(page);
  blocks_[page] = {++uses_, Evictable::kNever};
}

void LruPolicy::Use(int32_t page) {
  Block& block = blocks_[page];
  const Evictable evictable = block.evictable;
  Allow(page, Evictable::kNever);
  block.last_use = ++uses_;
  Allow(page, evictable);
}

void LruPolicy::Allow(int32_t page, Evictable evictable) {
  Block& block = blocks_[page];
  if (block.evictable == evictable) return;
  if (block.evictable != Evictable::kNever) OrderOf(block.evictable).Remove(page);
  block.evictable = evictable;
  if (evictable != Evictable::kNever) OrderOf(evictable).Insert(page, block.last_use);
}

std::optional<int32_t> LruPolicy::Victim(absl::Time) {
  const PageOrder& order = freely_.empty() ? reluctantly_ : freely_;
  if (order.empty()) return std::nullopt;
  return order.First();
}

std::vector<int32_t> LruPolicy::NextVictims(int count, absl::Time) {
  std::vector<int32_t> pages;
  freely_.List(count, &pages);
  return pages;
}

}  // namespace tarn::kvstore
