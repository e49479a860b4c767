#include "kvstore/core/hot_blocks.h"

#include <cmath>

namespace tarn::kvstore {

double HotBlocks::HeatOf(double count, absl::Time now) const {
  return std::log(count) + absl::FDivDuration(now - absl::UnixEpoch(), options_.memory);
}

double HotBlocks::CountOf(double heat, absl::Time now) const {
  return std::exp(heat - absl::FDivDuration(now - absl::UnixEpoch(), options_.memory));
}

void HotBlocks::Used(const BlockKey& key, absl::Time now) {
  double count = 0;
  if (auto it = heat_.find(key); it != heat_.end()) {
    count = CountOf(it->second, now);
    coldest_.erase({it->second, key});
  } else if (heat_.size() >= static_cast<size_t>(options_.blocks)) {
    count = CountOf(coldest_.begin()->first, now);
    heat_.erase(coldest_.begin()->second);
    coldest_.erase(coldest_.begin());
  }
  const double heat = HeatOf(count + 1, now);
  heat_[key] = heat;
  coldest_.insert({heat, key});
}

double HotBlocks::UsesPerSecond(const BlockKey& key, absl::Time now) const {
  auto it = heat_.find(key);
  if (it == heat_.end()) return 0;
  return CountOf(it->second, now) / absl::ToDoubleSeconds(options_.memory);
}

}  // namespace tarn::kvstore
