#pragma once

// Remembers a little about each of many keys in four bytes a key: what a policy knew of blocks that
// have gone.
//
// A table of sets, each first in, first out. Keys are told apart by 16 bits besides their set, so
// once in ten thousand it mistakes one key for another: good enough for advice. Pure,
// thread-compatible.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/block_key.h"

namespace tarn::kvstore {

class KeyMemory {
 public:
  struct Fact {
    uint8_t uses = 0;
    uint8_t turn = 0;
  };
  // Room for `keys`, rounded up to a power of two.
  explicit KeyMemory(int64_t keys);

  void Remember(const BlockKey& key, Fact fact);
  // What was last remembered of `key`, if that is still known; it is forgotten by that.
  std::optional<Fact> Recall(const BlockKey& key);

 private:
  static constexpr int kWays = 8;
  struct Entry {
    uint16_t tag = 0;  // 0: none
    Fact fact;
  };
  using Set = std::array<Entry, kWays>;  // newest first
  struct Place {
    Set* set;
    uint16_t tag;
  };
  Place PlaceOf(const BlockKey& key);

  std::vector<Set> sets_;
};

}  // namespace tarn::kvstore
