#include "kvstore/core/placement.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kvstore/core/draw.h"

namespace tarn::kvstore {
namespace {

// In (0, 1).
double Draw(const BlockKey& key, const NodeId& node) {
  const uint64_t draw = DrawOf(DrawOf(node.value()), key);
  return (static_cast<double>(draw >> 11) + 0.5) * 0x1p-53;
}

}  // namespace

double PlacementWeight(int pages, int free_pages) {
  if (pages <= 0) return 0;
  // What it could give up counts an eighth.
  return std::exp2(std::round(std::log2(free_pages + pages / 8.0)));
}

std::vector<size_t> ChooseStores(const BlockKey& key, std::span<const StoreView> stores,
                                 int copies) {
  std::vector<std::pair<double, size_t>> drawn;
  for (size_t i = 0; i < stores.size(); ++i) {
    if (stores[i].weight <= 0) continue;
    // An exponential draw of that rate: the least of several belongs to each in proportion.
    drawn.emplace_back(-std::log(Draw(key, stores[i].node)) / stores[i].weight, i);
  }
  const size_t chosen = std::min(drawn.size(), static_cast<size_t>(std::max(copies, 0)));
  std::partial_sort(drawn.begin(), drawn.begin() + static_cast<int64_t>(chosen), drawn.end(),
                    [&](const auto& a, const auto& b) {
                      if (a.first != b.first) return a.first < b.first;
                      return stores[a.second].node < stores[b.second].node;
                    });
  std::vector<size_t> indices;
  for (size_t i = 0; i < chosen; ++i) indices.push_back(drawn[i].second);
  return indices;
}

int CopiesFor(double uses_a_second, const ReplicationOptions& options) {
  const double more = uses_a_second / options.uses_a_second_per_copy;
  if (!(more > 0)) return 1;
  return 1 + static_cast<int>(std::min(more, static_cast<double>(options.max_copies - 1)));
}

}  // namespace tarn::kvstore
