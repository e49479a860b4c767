#include "kvstore/core/lru.h"

namespace tarn::kvstore {

LruPolicy::Candidate LruPolicy::CandidateFor(int32_t page) const {
  const Block& block = blocks_[page];
  return {block.evictable == Evictable::kReluctantly, block.last_use, page};
}

void LruPolicy::Change(int32_t page, Block block) {
  if (blocks_[page].evictable != Evictable::kNever) candidates_.erase(CandidateFor(page));
  blocks_[page] = block;
  if (block.evictable != Evictable::kNever) candidates_.insert(CandidateFor(page));
}

void LruPolicy::Insert(int32_t page, const BlockKey&, int32_t, const BlockTraits&, absl::Time) {
  Change(page, {++uses_, Evictable::kNever});
}

void LruPolicy::Touch(int32_t page, absl::Time) {
  Change(page, {++uses_, blocks_[page].evictable});
}

void LruPolicy::Allow(int32_t page, Evictable evictable) {
  Change(page, {blocks_[page].last_use, evictable});
}

void LruPolicy::Erase(int32_t page) { Change(page, {0, Evictable::kNever}); }

std::optional<int32_t> LruPolicy::Victim(absl::Time) const {
  if (candidates_.empty()) return std::nullopt;
  return candidates_.begin()->page;
}

}  // namespace tarn::kvstore
