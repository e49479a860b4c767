#include "kvstore/core/hand_over.h"

#include <algorithm>
#include <utility>

namespace tarn::kvstore {
namespace {

bool Better(const Heirloom& a, const Heirloom& b) {
  if (a.in_memory != b.in_memory) return a.in_memory;
  if (a.worth != b.worth) return a.worth > b.worth;
  if (a.last_use != b.last_use) return a.last_use > b.last_use;
  if (a.position != b.position) return a.position < b.position;
  return a.key < b.key;
}

}  // namespace

void Heirlooms::Add(const Heirloom& block) {
  if (max_ == 0) return;
  kept_.push_back(block);
  if (kept_.size() < 2 * max_) return;
  std::nth_element(kept_.begin(), kept_.begin() + static_cast<int64_t>(max_), kept_.end(), Better);
  kept_.resize(max_);
}

std::vector<BlockKey> Heirlooms::Take() {
  std::sort(kept_.begin(), kept_.end(), Better);
  if (kept_.size() > max_) kept_.resize(max_);
  std::vector<BlockKey> keys;
  for (const Heirloom& block : std::exchange(kept_, {})) keys.push_back(block.key);
  return keys;
}

std::vector<BlockKey> HandOver::Next(Elsewhere elsewhere, absl::Time now) {
  if (end_ != End::kNotYet) return {};
  Settle(elsewhere, now);
  std::vector<BlockKey> offered;
  while (offers_.size() < options_.window && next_ < blocks_.size()) {
    const BlockKey& key = blocks_[next_++];
    if (elsewhere(key)) {  // taken since the list was made
      ++taken_;
      continue;
    }
    offers_.push_back({key, now});
    offered.push_back(key);
  }
  end_ = Judge(now);
  return offered;
}

void HandOver::Settle(Elsewhere elsewhere, absl::Time now) {
  std::erase_if(offers_, [&](const Offer& offer) {
    if (elsewhere(offer.key)) {
      ++taken_;
      progress_ = now;
      return true;
    }
    return now - offer.made >= options_.patience;
  });
}

HandOver::End HandOver::Judge(absl::Time now) const {
  if (offers_.empty() && next_ == blocks_.size()) return End::kAllOffered;
  if (now - start_ >= options_.limit) return End::kOutOfTime;
  if (now - progress_ >= options_.patience) return End::kNotWanted;
  return End::kNotYet;
}

}  // namespace tarn::kvstore
