#include "common/runtime/random.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>

namespace tarn {

Random Random::FromEntropy() {
  std::random_device device;
  const uint64_t high = device();
  return Random(high << 32 | device());
}

// Lemire, "Fast Random Integer Generation in an Interval", 2019.
uint64_t Random::UniformInt(uint64_t bound) {
  CHECK_GT(bound, 0u);
  __extension__ using Wide = unsigned __int128;
  Wide product = static_cast<Wide>(Next()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = -bound % bound;
    while (static_cast<uint64_t>(product) < threshold) {
      product = static_cast<Wide>(Next()) * bound;
    }
  }
  return static_cast<uint64_t>(product >> 64);
}

int64_t Random::UniformInt(int64_t low, int64_t high) {
  CHECK_LE(low, high);
  const uint64_t width = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
  const uint64_t draw = width == 0 ? Next() : UniformInt(width);
  return static_cast<int64_t>(static_cast<uint64_t>(low) + draw);
}

void Random::Fill(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const uint64_t word = Next();
    const size_t count = std::min(bytes.size(), sizeof(word));
    std::memcpy(bytes.data(), &word, count);
    bytes = bytes.subspan(count);
  }
}

}  // namespace tarn
