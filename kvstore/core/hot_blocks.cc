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
  Entry entry;
  double count = 0;
  if (auto it = heat_.find(key); it != heat_.end()) {
    entry = it->second;
    count = CountOf(entry.heat, now);
    coldest_.erase({entry.heat, key});
  } else if (heat_.size() >= static_cast<size_t>(options_.blocks)) {
    entry.inherited = coldest_.begin()->first;
    count = CountOf(entry.inherited, now);
    heat_.erase(coldest_.begin()->second);
    coldest_.erase(coldest_.begin());
  }
  entry.heat = HeatOf(count + 1, now);
  heat_[key] = entry;
  coldest_.insert({entry.heat, key});
}

double HotBlocks::UsesPerSecond(const BlockKey& key, absl::Time now) const {
  auto it = heat_.find(key);
  if (it == heat_.end()) return 0;
  const double count = CountOf(it->second.heat, now) - CountOf(it->second.inherited, now);
  return count / absl::ToDoubleSeconds(options_.memory);
}

}  // namespace tarn::kvstore
