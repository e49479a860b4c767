#include "kvstore/core/learned.h"

#include <algorithm>
#include <bit>

namespace tarn::kvstore {
namespace {

constexpr int kBuckets = AgeScale::kBuckets;
constexpr int kMost = 255;
// Ranking takes about a millisecond: spread over so many rests it costs half a microsecond each.
constexpr int kNewsToRank = 2048;
// Keys watched and remembered, for each page: what the cache cannot hold is learned from keys that
// it no longer holds. Small caches can afford more.
constexpr int64_t kWatchedPerPage = 5, kMostWatched = 1 << 16;
constexpr int64_t kRememberedPerPage = 8, kLeastRemembered = 1 << 16;

// Kinds: in steps of a factor of two or three, since what matters is the order of magnitude.
constexpr int kUsesSteps = 4, kTurnSteps = 5, kNewSteps = 5, kEndSteps = 2;
constexpr int kClassesOfUses = kTurnSteps * kNewSteps * kEndSteps;
constexpr int kClasses = kUsesSteps * kClassesOfUses;

int UsesStep(int uses) { return uses <= 1 ? 0 : uses == 2 ? 1 : uses <= 4 ? 2 : 3; }
int TurnStep(int turn) { return turn <= 1 ? 0 : turn == 2 ? 1 : turn <= 4 ? 2 : turn <= 8 ? 3 : 4; }
int NewStep(uint32_t blocks) {
  return blocks == 0 ? 0 : blocks <= 2 ? 1 : blocks <= 6 ? 2 : blocks <= 18 ? 3 : 4;
}

ReuseEstimator::Options EstimatorFor(int pages) {
  ReuseEstimator::Options options;
  for (int i = 0; i < kClasses; ++i) options.group_of_class.push_back(i / kClassesOfUses);
  const int64_t wanted = kWatchedPerPage * std::max(pages, 64);
  options.watched = static_cast<int>(std::min(wanted, kMostWatched));
  options.sample_of = static_cast<int>(
      std::bit_ceil(static_cast<uint64_t>((wanted + options.watched - 1) / options.watched)));
  return options;
}

uint8_t Clamp(int64_t count) { return static_cast<uint8_t>(std::min<int64_t>(count, kMost)); }

}  // namespace

LearnedPolicy::LearnedPolicy(int pages)
    : estimator_(EstimatorFor(pages)),
      memory_(std::max(kLeastRemembered, kRememberedPerPage * pages)),
      cells_(kClasses * kBuckets, PageOrder(&links_)),
      cell_of_rank_(cells_.size()),
      rank_of_cell_(cells_.size()),
      filled_((cells_.size() + 63) / 64) {
  blocks_.reserve(pages);
  RankCells();
}

int32_t LearnedPolicy::ParentOf(int32_t page) const {
  const Block& block = blocks_[page];
  if (block.parent < 0 || blocks_[block.parent].life != block.parent_life) return -1;
  return block.parent;
}

int LearnedPolicy::ClassOf(const Block& block) const {
  const int steps = (UsesStep(block.uses) * kTurnSteps + TurnStep(block.turn)) * kNewSteps +
                    NewStep(block.computed);
  return steps * kEndSteps + (block.continued ? 0 : 1);
}

int LearnedPolicy::CellFor(const Block& block, absl::Time now) const {
  return ClassOf(block) * kBuckets + AgeScale::BucketOf(now - block.rested);
}

void LearnedPolicy::Insert(int32_t page, const BlockKey& key, int32_t parent,
                           const BlockTraits& traits, absl::Time now) {
  now_ = std::max(now_, now);
  if (static_cast<size_t>(page) >= blocks_.size()) blocks_.resize(page + 1);
  links_.Grow(page);
  estimator_.Used(key, now_);
  blocks_[page] = {.key = key,
                   .rested = now_,
                   .stamp = ++stamps_,
                   .life = stamps_,
                   .uses = 1,
                   .turn = 1,
                   .computed = traits.new_blocks,
                   .in_use = true};
  if (parent >= 0) Follow(blocks_[parent], parent, &blocks_[page]);
  if (std::optional<KeyMemory::Fact> known = memory_.Recall(key); known.has_value()) {
    // As good as a touch: the request goes on with what was there before.
    blocks_[page].uses = Clamp(known->uses + 1);
    blocks_[page].turn = std::max(blocks_[page].turn, Clamp(known->turn + 1));
    blocks_[page].touched = true;
    blocks_[page].computed = 0;
    ++blocks_[page].recalled;
  }
  if (traits.turn > 0) blocks_[page].turn = Clamp(traits.turn);
  TellChain(page);
}

void LearnedPolicy::Follow(const Block& parent, int32_t parent_page, Block* block) const {
  block->parent = parent_page;
  block->parent_life = parent.life;
  if (!parent.touched) {
    // This request made the parent, too.
    block->turn = parent.turn;
    block->computed = parent.computed;
    return;
  }
  // Here an older chain was left: at its end, or in its middle.
  if (!parent.branches) block->turn = parent.turn;
  block->recalled = parent.recalled;
  // What had to be computed again was not new to the conversation.
  if (block->computed > 0) block->computed -= std::min(block->computed - 1, parent.recalled);
}

void LearnedPolicy::TellChain(int32_t page) {
  const Block& teller = blocks_[page];
  int32_t parent = ParentOf(page);
  if (parent < 0) return;
  SetContinued(parent);
  if (int32_t grandparent = ParentOf(parent); grandparent >= 0) {
    blocks_[grandparent].branches = true;
  }
  if (teller.touched) return;  // who computes something new will tell
  for (; parent >= 0 && blocks_[parent].touched; parent = ParentOf(parent)) {
    Unplace(parent);
    Block& block = blocks_[parent];
    block.touched = false;
    block.turn = teller.turn;
    block.computed = teller.computed;
    Place(parent);
  }
}

void LearnedPolicy::SetContinued(int32_t page) {
  if (blocks_[page].continued) return;
  Unplace(page);
  blocks_[page].continued = true;
  Place(page);
}

void LearnedPolicy::Touch(int32_t page, absl::Time now) {
  now_ = std::max(now_, now);
  Unplace(page);
  Block& block = blocks_[page];
  estimator_.Used(block.key, now_);
  block.rested = now_;
  block.stamp = ++stamps_;
  block.uses = Clamp(block.uses + 1);
  block.turn = Clamp(block.turn + 1);
  block.computed = block.recalled = 0;
  block.in_use = block.touched = true;
  Place(page);
}

void LearnedPolicy::Rest(int32_t page, absl::Time now) {
  now_ = std::max(now_, now);
  Block& block = blocks_[page];
  if (!block.in_use) return;
  Unplace(page);
  block.in_use = false;
  block.rested = now_;
  block.stamp = ++stamps_;
  estimator_.Rested(block.key, ClassOf(block), now_);
  Place(page);
}

void LearnedPolicy::Allow(int32_t page, Evictable evictable) {
  if (blocks_[page].evictable == evictable) return;
  Unplace(page);
  blocks_[page].evictable = evictable;
  Place(page);
}

void LearnedPolicy::Erase(int32_t page) {
  memory_.Remember(blocks_[page].key, {blocks_[page].uses, blocks_[page].turn});
  Unplace(page);
  blocks_[page] = {};
}

void LearnedPolicy::Place(int32_t page) {
  const Block& block = blocks_[page];
  if (block.evictable == Evictable::kReluctantly) reluctantly_.Insert(page, block.stamp);
  if (block.evictable == Evictable::kFreely) PutInCell(page, CellFor(block, now_));
}

void LearnedPolicy::PutInCell(int32_t page, int cell) {
  blocks_[page].cell = cell;
  cells_[cell].Insert(page, blocks_[page].stamp);
  const int32_t rank = rank_of_cell_[cell];
  filled_[rank / 64] |= uint64_t{1} << (rank % 64);
}

void LearnedPolicy::Unplace(int32_t page) {
  Block& block = blocks_[page];
  if (block.evictable == Evictable::kReluctantly) reluctantly_.Remove(page);
  if (block.evictable != Evictable::kFreely) return;
  cells_[block.cell].Remove(page);
  const int32_t rank = rank_of_cell_[block.cell];
  if (cells_[block.cell].empty()) filled_[rank / 64] &= ~(uint64_t{1} << (rank % 64));
  block.cell = -1;
}

void LearnedPolicy::AgeCells(absl::Time now) {
  aged_ = now;
  const std::vector<uint64_t> filled = filled_;
  for (size_t word = 0; word < filled.size(); ++word) {
    for (uint64_t bits = filled[word]; bits != 0; bits &= bits - 1) {
      const int cell = cell_of_rank_[word * 64 + std::countr_zero(bits)];
      const int bucket = cell % kBuckets;
      if (bucket == kBuckets - 1) continue;
      const absl::Time latest = now - AgeScale::Start(bucket + 1);
      for (int32_t page; (page = cells_[cell].First()) >= 0 && blocks_[page].rested <= latest;) {
        Unplace(page);
        PutInCell(page, cell - bucket +
                            std::max(bucket + 1, AgeScale::BucketOf(now - blocks_[page].rested)));
      }
    }
  }
}

void LearnedPolicy::RankCells() {
  estimator_.Refresh();
  // By worth, then the older first. One number a cell sorts faster than a comparison of three.
  std::vector<uint64_t> keys;
  keys.reserve(cells_.size());
  for (uint64_t cell = 0; cell < cells_.size(); ++cell) {
    const uint64_t bucket = cell % kBuckets;
    const auto worth = static_cast<float>(
        estimator_.Worth(static_cast<int>(cell / kBuckets), static_cast<int>(bucket)));
    // What is not negative is ordered as its bits are.
    keys.push_back(uint64_t{std::bit_cast<uint32_t>(worth)} << 32 | (kBuckets - bucket) << 24 |
                   cell);
  }
  std::sort(keys.begin(), keys.end());
  std::fill(filled_.begin(), filled_.end(), 0);
  for (size_t rank = 0; rank < cell_of_rank_.size(); ++rank) {
    const auto cell = static_cast<int32_t>(keys[rank] & 0xffffff);
    cell_of_rank_[rank] = cell;
    rank_of_cell_[cell] = static_cast<int32_t>(rank);
    if (!cells_[cell].empty()) filled_[rank / 64] |= uint64_t{1} << (rank % 64);
  }
}

std::optional<int32_t> LearnedPolicy::Victim(absl::Time now) {
  now_ = std::max(now_, now);
  if (estimator_.news() >= kNewsToRank) RankCells();
  if (now_ - aged_ >= AgeScale::Start(1)) AgeCells(now_);
  for (size_t word = 0; word < filled_.size(); ++word) {
    if (filled_[word] == 0) continue;
    return cells_[cell_of_rank_[word * 64 + std::countr_zero(filled_[word])]].First();
  }
  if (reluctantly_.empty()) return std::nullopt;
  return reluctantly_.First();
}

std::vector<int32_t> LearnedPolicy::NextVictims(int count, absl::Time now) {
  std::vector<int32_t> pages;
  Victim(now);
  for (size_t word = 0; word < filled_.size(); ++word) {
    for (uint64_t bits = filled_[word]; bits != 0; bits &= bits - 1) {
      const int missing = count - static_cast<int>(pages.size());
      if (missing <= 0) return pages;
      cells_[cell_of_rank_[word * 64 + std::countr_zero(bits)]].List(missing, &pages);
    }
  }
  return pages;
}

std::optional<double> LearnedPolicy::Worth(int32_t page, absl::Time now) const {
  const Block& block = blocks_[page];
  return estimator_.Worth(ClassOf(block), AgeScale::BucketOf(now - block.rested));
}

}  // namespace tarn::kvstore
