#include "common/memory/stream_copy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/runtime/random.h"

namespace tarn {
namespace {

TEST(StreamCopy, CopiesAnySizeAndAlignmentAndNothingBeside) {
  std::vector<std::byte> from(300'000);
  std::vector<std::byte> to(300'000);
  Random(1).Fill(from);
  Random random(2);
  for (int round = 0; round < 60; ++round) {
    const size_t size = random.UniformInt(round % 2 == 0 ? 300 : 200'000);
    const size_t source = random.UniformInt(100);
    const size_t target = 1 + random.UniformInt(100);
    std::memset(to.data(), 0xa5, to.size());
    StreamCopy(to.data() + target, from.data() + source, size);
    EXPECT_EQ(std::memcmp(to.data() + target, from.data() + source, size), 0) << size;
    EXPECT_EQ(to[target - 1], std::byte{0xa5});
    EXPECT_EQ(to[target + size], std::byte{0xa5});
  }
}

}  // namespace
}  // namespace tarn
