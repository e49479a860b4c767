#include "kvstore/core/block_table.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace tarn::kvstore {

BlockTable::BlockTable(int pages, std::unique_ptr<EvictionPolicy> policy, Start start)
    : policy_(std::move(policy)), pages_(pages) {
  CHECK_GE(pages, 0);
  free_.reserve(pages);
  if (start == Start::kEmpty) FinishRestore();
}

void BlockTable::FinishRestore() {
  for (int32_t page = pages() - 1; page >= 0; --page) {
    if (pages_[page].state != State::kSetAside) continue;
    pages_[page].state = State::kFree;
    free_.push_back(page);
  }
}

bool BlockTable::Reserve(int pages) {
  CHECK_GE(pages, 0);
  if (pages > available() - reserved_) return false;
  reserved_ += pages;
  return true;
}

void BlockTable::Unreserve(int pages) {
  CHECK_GE(pages, 0);
  CHECK_LE(pages, reserved_);
  reserved_ -= pages;
}

TakenPage BlockTable::TakeReserved(absl::Time now) {
  CHECK_GT(reserved_, 0) << "a page was taken without a promise";
  --reserved_;
  return Take(now);
}

std::optional<TakenPage> BlockTable::TryTake(absl::Time now) {
  if (available() <= reserved_) return std::nullopt;
  return Take(now);
}

TakenPage BlockTable::Take(absl::Time now) {
  TakenPage taken;
  if (free_.empty()) {
    std::optional<int32_t> victim = policy_->Victim(now);
    CHECK(victim.has_value()) << "no page for a promise";
    taken.evicted = pages_[*victim].key;
    Evict(*victim);
  }
  taken.page = free_.back();
  free_.pop_back();
  Page& page = pages_[taken.page];
  page.state = State::kPrivate;
  page.holds = 1;
  ++page.epoch;
  ++held_;
  return taken;
}

int32_t BlockTable::Find(const BlockKey& key) const {
  auto it = by_key_.find(key);
  return it == by_key_.end() ? -1 : it->second;
}

void BlockTable::HoldReserved(int32_t page, absl::Time now, HoldFor purpose) {
  if (!held(page)) {
    CHECK_GT(reserved_, 0) << "a page was held without a promise";
    --reserved_;
  }
  AddHold(page, now, purpose);
}

bool BlockTable::TryHold(int32_t page, absl::Time now, HoldFor purpose) {
  if (!held(page) && available() <= reserved_) return false;
  AddHold(page, now, purpose);
  return true;
}

void BlockTable::AddHold(int32_t page, absl::Time now, HoldFor purpose) {
  CHECK(cached(page)) << "page " << page << " is not shared";
  if (purpose == HoldFor::kUse) {
    policy_->Touch(page, now);
    pages_[page].last_use = now;
    pages_[page].used = true;
  }
  if (pages_[page].holds++ > 0) return;
  ++held_;
  --evictable_;
  CountUnheldChild(page, -1);
  Reconsider(page);
}

void BlockTable::LetGo(int32_t index, absl::Time now) {
  Page& page = pages_[index];
  CHECK_GT(page.holds, 0) << "page " << index << " is not held";
  if (--page.holds > 0) return;
  --held_;
  if (page.state == State::kPrivate) {
    page.state = State::kFree;
    free_.push_back(index);
    return;
  }
  ++evictable_;
  if (std::exchange(page.used, false)) policy_->Rest(index, now);
  CountUnheldChild(index, +1);
  Reconsider(index);
}

bool BlockTable::Publish(int32_t index, const BlockKey& key, const std::optional<BlockKey>& parent,
                         const BlockTraits& traits, absl::Time now) {
  Page& page = pages_[index];
  CHECK(page.state == State::kPrivate) << "page " << index << " is not private";
  if (!by_key_.try_emplace(key, index).second) return false;
  Cache(index, key, parent, traits, now);
  page.used = true;
  return true;
}

void BlockTable::Cache(int32_t index, const BlockKey& key, const std::optional<BlockKey>& parent,
                       const BlockTraits& traits, absl::Time now) {
  Page& page = pages_[index];
  page.state = State::kCached;
  page.key = key;
  page.parent = parent;
  page.parent_page = parent.has_value() ? Find(*parent) : -1;
  page.traits = traits;
  page.last_use = now;
  policy_->Insert(index, key, ParentOf(index), traits, now);
  LinkToParent(index);
  AdoptChildren(index);
}

bool BlockTable::Restore(int32_t index, const BlockKey& key, const std::optional<BlockKey>& parent,
                         const BlockTraits& traits, absl::Time now) {
  Page& page = pages_[index];
  if (page.state != State::kSetAside || !by_key_.try_emplace(key, index).second) return false;
  ++page.epoch;
  Cache(index, key, parent, traits, now);
  ++evictable_;
  CountUnheldChild(index, +1);
  Reconsider(index);
  return true;
}

void BlockTable::Lose(int32_t index) { Evict(index); }

void BlockTable::LinkToParent(int32_t index) {
  Page& page = pages_[index];
  if (!page.parent.has_value()) return;
  std::vector<int32_t>& siblings = children_[*page.parent];
  page.sibling = static_cast<uint32_t>(siblings.size());
  siblings.push_back(index);
  int32_t parent = ParentOf(index);
  if (parent < 0) return;
  ++pages_[parent].children;
  Reconsider(parent);
}

void BlockTable::AdoptChildren(int32_t index) {
  Page& page = pages_[index];
  page.children = page.unheld_children = 0;
  auto it = children_.find(page.key);
  if (it == children_.end()) return;
  page.children = static_cast<int32_t>(it->second.size());
  for (int32_t child : it->second) {
    pages_[child].parent_page = index;
    page.unheld_children += held(child) ? 0 : 1;
  }
}

void BlockTable::OrphanChildren(int32_t index) {
  if (pages_[index].children == 0) return;
  for (int32_t child : children_.at(pages_[index].key)) pages_[child].parent_page = -1;
}

void BlockTable::UnlinkFromParent(int32_t index) {
  const Page& page = pages_[index];
  if (!page.parent.has_value()) return;
  // A prompt that all share has as many children as there are conversations: no search.
  auto it = children_.find(*page.parent);
  std::vector<int32_t>& siblings = it->second;
  pages_[siblings.back()].sibling = page.sibling;
  siblings[page.sibling] = siblings.back();
  siblings.pop_back();
  if (siblings.empty()) children_.erase(it);
  int32_t parent = ParentOf(index);
  if (parent < 0) return;
  --pages_[parent].children;
  --pages_[parent].unheld_children;
  Reconsider(parent);
}

void BlockTable::CountUnheldChild(int32_t page, int change) {
  int32_t parent = ParentOf(page);
  if (parent < 0) return;
  pages_[parent].unheld_children += change;
  Reconsider(parent);
}

bool BlockTable::Drop(int32_t page) {
  if (!cached(page) || held(page) || pages_[page].unheld_children > 0) return false;
  Evict(page);
  return true;
}

void BlockTable::Evict(int32_t index) {
  Page& page = pages_[index];
  CHECK(page.state == State::kCached && page.holds == 0) << "page " << index << " is in use";
  UnlinkFromParent(index);
  OrphanChildren(index);
  policy_->Erase(index);
  by_key_.erase(page.key);
  page.state = State::kFree;
  page.parent.reset();
  page.parent_page = -1;
  page.traits = {};
  --evictable_;
  free_.push_back(index);
}

void BlockTable::Reconsider(int32_t index) {
  const Page& page = pages_[index];
  Evictable evictable = Evictable::kNever;
  if (page.holds == 0 && page.children == 0) {
    evictable = Evictable::kFreely;
  } else if (page.holds == 0 && page.unheld_children == 0) {
    evictable = Evictable::kReluctantly;
  }
  policy_->Allow(index, evictable);
}

std::vector<CachedBlock> BlockTable::Blocks(int32_t first, int32_t end) const {
  std::vector<CachedBlock> blocks;
  for (int32_t page = first; page < end; ++page) {
    if (cached(page)) blocks.push_back({pages_[page].key, page, pages_[page].epoch});
  }
  return blocks;
}

}  // namespace tarn::kvstore
