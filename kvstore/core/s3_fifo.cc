#include "kvstore/core/s3_fifo.h"

#include <algorithm>

namespace tarn::kvstore {
namespace {

constexpr int kMostUses = 3;
constexpr int kUsesForMain = 2;

}  // namespace

S3FifoPolicy::S3FifoPolicy(int pages)
    : small_target_(std::max(1, pages / 10)), ghost_target_(std::max(1, pages - pages / 10)) {
  blocks_.reserve(pages);
}

PageOrder& S3FifoPolicy::OrderOf(const Block& block) {
  if (block.evictable == Evictable::kReluctantly) return reluctantly_;
  return block.queue == Queue::kSmall ? small_ : main_;
}

void S3FifoPolicy::Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits&,
                          absl::Time) {
  if (static_cast<size_t>(page) >= blocks_.size()) blocks_.resize(page + 1);
  links_.Grow(page);
  const Queue queue = TakeGhost(key) ? Queue::kMain : Queue::kSmall;
  ++stamps_;
  blocks_[page] = {.stamp = stamps_, .life = stamps_, .key = key, .queue = queue};
  if (parent >= 0) {
    blocks_[page].parent = parent;
    blocks_[page].parent_life = blocks_[parent].life;
  }
  small_pages_ += queue == Queue::kSmall;
  if (queue == Queue::kMain) TakeParentsAlong(page);
}

void S3FifoPolicy::Touch(int32_t page, absl::Time) {
  Block& block = blocks_[page];
  block.uses = static_cast<uint8_t>(std::min(kMostUses, block.uses + 1));
}

void S3FifoPolicy::Allow(int32_t page, Evictable evictable) {
  Block& block = blocks_[page];
  if (block.evictable == evictable) return;
  if (block.evictable != Evictable::kNever) OrderOf(block).Remove(page);
  block.evictable = evictable;
  if (evictable != Evictable::kNever) OrderOf(block).Insert(page, block.stamp);
}

void S3FifoPolicy::Erase(int32_t page) {
  Allow(page, Evictable::kNever);
  Block& block = blocks_[page];
  if (block.queue == Queue::kSmall) {
    --small_pages_;
    Remember(block.key);
  }
  block = {};
}

void S3FifoPolicy::MoveToMain(int32_t page, int uses) {
  Block& block = blocks_[page];
  const Evictable evictable = block.evictable;
  Allow(page, Evictable::kNever);
  small_pages_ -= block.queue == Queue::kSmall;
  block.queue = Queue::kMain;
  block.stamp = ++stamps_;
  block.uses = static_cast<uint8_t>(uses);
  Allow(page, evictable);
}

void S3FifoPolicy::TakeParentsAlong(int32_t page) {
  for (;;) {
    const Block& child = blocks_[page];
    page = child.parent;
    if (page < 0 || blocks_[page].life != child.parent_life) return;
    if (blocks_[page].queue != Queue::kSmall) return;
    MoveToMain(page, 0);
  }
}

std::optional<int32_t> S3FifoPolicy::Victim(absl::Time) {
  // Ends: each turn moves a block from small to main, or takes one of its few uses.
  while (!small_.empty() || !main_.empty()) {
    if (main_.empty() || (small_pages_ >= small_target_ && !small_.empty())) {
      const int32_t page = small_.First();
      if (blocks_[page].uses < kUsesForMain) return page;
      MoveToMain(page, 0);
      TakeParentsAlong(page);
    } else {
      const int32_t page = main_.First();
      if (blocks_[page].uses == 0) return page;
      MoveToMain(page, blocks_[page].uses - 1);
    }
  }
  if (reluctantly_.empty()) return std::nullopt;
  return reluctantly_.First();
}

std::vector<int32_t> S3FifoPolicy::NextVictims(int count, absl::Time now) {
  std::vector<int32_t> pages;
  Victim(now);  // brings one that will go to the front of its queue
  const bool small_first = main_.empty() || small_pages_ >= small_target_;
  (small_first ? small_ : main_).List(count, &pages);
  (small_first ? main_ : small_).List(count - static_cast<int>(pages.size()), &pages);
  return pages;
}

void S3FifoPolicy::Remember(const BlockKey& key) {
  ghosts_[key] = ++stamps_;
  ghost_queue_.emplace_back(key, stamps_);
  while (ghost_queue_.size() > ghost_target_) {
    const auto& [oldest, stamp] = ghost_queue_.front();
    auto it = ghosts_.find(oldest);
    if (it != ghosts_.end() && it->second == stamp) ghosts_.erase(it);
    ghost_queue_.pop_front();
  }
}

bool S3FifoPolicy::TakeGhost(const BlockKey& key) { return ghosts_.erase(key) > 0; }

}  // namespace tarn::kvstore
