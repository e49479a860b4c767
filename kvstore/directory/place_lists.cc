#include "kvstore/directory/place_lists.h"

#include <algorithm>
#include <cstring>

namespace tarn::kvstore {
namespace {

constexpr uint32_t kSlabUnits = PiecePool::kPieceBytes / 8;

}  // namespace

bool PlaceLists::HasRoom(const Slab& slab) {
  return slab.free != 0 || slab.used + UnitsOf(slab.size_class) <= kSlabUnits;
}

ListRef PlaceLists::Take(uint32_t size_class) {
  std::vector<uint32_t>& roomy = roomy_[size_class];
  if (roomy.empty()) {
    // Not cleared: a class with a list or two may take and give back its only piece all the time.
    std::optional<uint32_t> piece = pool_->Take(PiecePool::Content::kAnything);
    if (!piece.has_value()) return 0;
    SlabOf(*piece) = {size_class, 0, 0, sizeof(Slab) / kUnit};
    roomy.push_back(*piece);
  }
  uint32_t piece = roomy.back();
  Slab& slab = SlabOf(piece);
  ListRef list = slab.free;
  if (list != 0) {
    std::memcpy(&slab.free, At(list), sizeof(slab.free));
  } else {
    list = piece << 16 | slab.used;
    slab.used += UnitsOf(size_class);
  }
  ++slab.live;
  if (!HasRoom(slab)) roomy.pop_back();
  HeaderOf(list) = {0, static_cast<uint16_t>(size_class)};
  return list;
}

void PlaceLists::Destroy(ListRef list) {
  uint32_t piece = list >> 16;
  Slab& slab = SlabOf(piece);
  std::vector<uint32_t>& roomy = roomy_[slab.size_class];
  bool had_room = HasRoom(slab);
  if (--slab.live == 0) {
    if (had_room) roomy.erase(std::find(roomy.begin(), roomy.end(), piece));
    return pool_->Give(piece);
  }
  std::memcpy(At(list), &slab.free, sizeof(slab.free));
  slab.free = list;
  if (!had_room) roomy.push_back(piece);
}

ListRef PlaceLists::Create(uint32_t who_a, const Spot& a, uint32_t who_b, const Spot& b) {
  ListRef list = Take(0);
  if (list == 0) return 0;
  Append(list, who_a, a);
  Append(list, who_b, b);
  return list;
}

bool PlaceLists::Append(ListRef& list, uint32_t who, const Spot& spot) {
  Header header = HeaderOf(list);
  if (header.count == Capacity(header.size_class) && !Resize(list, header.size_class + 1u)) {
    return false;
  }
  WhoOf(list)[header.count] = who;
  SpotsOf(list)[header.count] = spot;
  ++HeaderOf(list).count;
  return true;
}

void PlaceLists::RemoveAt(ListRef& list, uint32_t at) {
  Header& header = HeaderOf(list);
  --header.count;
  WhoOf(list)[at] = WhoOf(list)[header.count];
  SpotsOf(list)[at] = SpotsOf(list)[header.count];
  // At a quarter, so that one place that comes and goes does not move the list each time.
  if (header.size_class > 0 && header.count * 4u <= Capacity(header.size_class)) {
    Resize(list, header.size_class - 1u);
  }
}

bool PlaceLists::Resize(ListRef& list, uint32_t size_class) {
  if (size_class >= kClasses) return false;
  ListRef resized = Take(size_class);
  if (resized == 0) return false;
  uint16_t count = HeaderOf(list).count;
  HeaderOf(resized).count = count;
  std::copy_n(WhoOf(list), count, WhoOf(resized));
  std::copy_n(SpotsOf(list), count, SpotsOf(resized));
  Destroy(list);
  list = resized;
  return true;
}

}  // namespace tarn::kvstore
