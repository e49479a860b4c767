#include "kvstore/core/key_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace tarn::kvstore {

KeyMemory::KeyMemory(int64_t keys)
    : sets_(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, keys / kWays)))) {}

KeyMemory::Place KeyMemory::PlaceOf(const BlockKey& key) {
  uint64_t word;
  std::memcpy(&word, key.bytes.data(), sizeof(word));
  const auto tag = static_cast<uint16_t>(word >> 48);
  return {&sets_[word & (sets_.size() - 1)], tag == 0 ? uint16_t{1} : tag};
}

void KeyMemory::Remember(const BlockKey& key, Fact fact) {
  const auto [set, tag] = PlaceOf(key);
  std::copy_backward(set->begin(), set->end() - 1, set->end());
  set->front() = {tag, fact};
}

std::optional<KeyMemory::Fact> KeyMemory::Recall(const BlockKey& key) {
  const auto [set, tag] = PlaceOf(key);
  auto it = std::find_if(set->begin(), set->end(),
                         [tag = tag](const Entry& entry) { return entry.tag == tag; });
  if (it == set->end()) return std::nullopt;
  const Fact fact = it->fact;
  std::copy(it + 1, set->end(), it);
  set->back() = {};
  return fact;
}

}  // namespace tarn::kvstore
