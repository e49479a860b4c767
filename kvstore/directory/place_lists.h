#pragma once

// The places of blocks that are in more than one, in one memory with their table.
//
// A list is 4 bytes and 12 a place, its capacity a power of two; lists of one capacity share
// pieces of memory, and a piece without lists goes back. What a match looks at (`who`) lies
// together: 100 places are seven cache lines. Thread-compatible: const calls may overlap.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvstore/directory/key_table.h"
#include "kvstore/directory/pieces.h"

namespace tarn::kvstore {

// Names a list: 31 bits; never 0.
using ListRef = uint32_t;

class PlaceLists {
 public:
  static constexpr uint32_t kMaxPlaces = 32768;

  // `pool` outlives the lists.
  explicit PlaceLists(PiecePool* pool) : pool_(pool) {}

  // A list of two; 0 when there is no memory.
  ListRef Create(uint32_t who_a, const Spot& a, uint32_t who_b, const Spot& b);
  void Destroy(ListRef list);
  // Adds a place; false, and nothing changes, when there is no memory. The list may move.
  bool Append(ListRef& list, uint32_t who, const Spot& spot);
  // Takes a place out; the last one takes its index. The list may move, and may become empty.
  void RemoveAt(ListRef& list, uint32_t at);

  std::span<const uint32_t> Who(ListRef list) const { return {WhoOf(list), HeaderOf(list).count}; }
  std::span<uint32_t> Who(ListRef list) { return {WhoOf(list), HeaderOf(list).count}; }
  const Spot& SpotAt(ListRef list, uint32_t at) const { return SpotsOf(list)[at]; }
  Spot& SpotAt(ListRef list, uint32_t at) { return SpotsOf(list)[at]; }
  void Prefetch(ListRef list) const { __builtin_prefetch(At(list)); }

 private:
  static constexpr int kClasses = 15;  // capacities 2, 4, ... 32768
  struct Header {
    uint16_t count;
    uint16_t size_class;
  };
  // At the begin of each piece.
  struct Slab {
    uint32_t size_class;
    uint32_t live;  // lists
    uint32_t free;  // first of the chain of destroyed lists, as ListRef; 0: none
    uint32_t used;  // units given out, this header included
  };
  // Lists begin at multiples of this; a piece has 65536 of them.
  static constexpr size_t kUnit = 8;

  static uint32_t Capacity(uint32_t size_class) { return 2u << size_class; }
  static uint32_t UnitsOf(uint32_t size_class) {
    return static_cast<uint32_t>((sizeof(Header) + 12 * Capacity(size_class) + kUnit - 1) / kUnit);
  }
  static bool HasRoom(const Slab& slab);

  std::byte* At(ListRef list) const { return pool_->At(list >> 16) + (list & 0xFFFF) * kUnit; }
  Header& HeaderOf(ListRef list) const { return *reinterpret_cast<Header*>(At(list)); }
  uint32_t* WhoOf(ListRef list) const {
    return reinterpret_cast<uint32_t*>(At(list) + sizeof(Header));
  }
  Spot* SpotsOf(ListRef list) const {
    return reinterpret_cast<Spot*>(WhoOf(list) + Capacity(HeaderOf(list).size_class));
  }
  Slab& SlabOf(uint32_t piece) const { return *reinterpret_cast<Slab*>(pool_->At(piece)); }
  ListRef Take(uint32_t size_class);
  bool Resize(ListRef& list, uint32_t size_class);

  PiecePool* pool_;
  std::array<std::vector<uint32_t>, kClasses> roomy_;  // pieces that have room, by class
};

}  // namespace tarn::kvstore
