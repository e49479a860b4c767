#pragma once

// The 32 bits of a place that a match looks at: the number of the node's life, tier and region; or
// that the places are in a list. Never 0.

#include <cstdint>

#include "kvstore/core/types.h"
#include "kvstore/directory/place_lists.h"

namespace tarn::kvstore::who {

constexpr uint32_t kList = uint32_t{1} << 31;
constexpr uint32_t kWide = uint32_t{1} << 18;  // the address is in the side table
constexpr int kTierShift = 16;
constexpr int kRegionShift = 19;
constexpr uint32_t kMaxRegion = 255;
constexpr uint32_t kPlaceMask = kWide - 1;  // number and tier

constexpr uint32_t Make(uint16_t number, Tier tier) {
  return number | static_cast<uint32_t>(tier) << kTierShift;
}
constexpr uint16_t NumberOf(uint32_t who) { return static_cast<uint16_t>(who); }
constexpr Tier TierOf(uint32_t who) { return static_cast<Tier>(who >> kTierShift & 3); }
constexpr uint32_t RegionOf(uint32_t who) { return who >> kRegionShift & kMaxRegion; }

constexpr bool IsList(uint32_t who) { return (who & kList) != 0; }
constexpr ListRef ListOf(uint32_t who) { return who & ~kList; }

}  // namespace tarn::kvstore::who
