#include "kvstore/core/hot_blocks.h"

#include <gtest/gtest.h>

namespace tarn::kvstore {
namespace {

// As far from the epoch as clocks are.
constexpr absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

BlockKey Key(uint32_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  return key;
}

TEST(HotBlocksTest, EstimatesASteadyRate) {
  HotBlocks hot({.blocks = 10, .memory = absl::Seconds(60)});
  absl::Time now = kStart;
  for (int i = 0; i < 3000; ++i) {
    now += absl::Milliseconds(200);
    hot.Used(Key(1), now);
  }
  EXPECT_NEAR(hot.UsesPerSecond(Key(1), now), 5, 0.2);
  EXPECT_NEAR(hot.UsesPerSecond(Key(1), now + absl::Seconds(60)), 5 / 2.718, 0.2) << "it fades";
  EXPECT_EQ(hot.UsesPerSecond(Key(2), now), 0);
}

TEST(HotBlocksTest, KeepsTheHottest) {
  HotBlocks hot({.blocks = 20, .memory = absl::Seconds(60)});
  absl::Time now = kStart;
  uint32_t cold = 100;
  for (int i = 0; i < 3000; ++i) {
    now += absl::Milliseconds(100);
    hot.Used(Key(i % 4), now);
    hot.Used(Key(cold++), now);
  }
  for (uint32_t key = 0; key < 4; ++key) EXPECT_NEAR(hot.UsesPerSecond(Key(key), now), 2.5, 0.6);
  EXPECT_NEAR(hot.UsesPerSecond(Key(cold - 1), now), 1 / 60.0, 0.001) << "not what it inherited";
  EXPECT_EQ(hot.UsesPerSecond(Key(100), now), 0);
}

// As when a node comes back and tells all that it has.
TEST(HotBlocksTest, AFloodMakesNothingHot) {
  HotBlocks hot({.blocks = 100, .memory = absl::Seconds(60)});
  for (uint32_t i = 0; i < 100'000; ++i) hot.Used(Key(i), kStart);
  for (uint32_t i = 0; i < 100'000; ++i) ASSERT_LE(hot.UsesPerSecond(Key(i), kStart), 1.001 / 60);
  for (int i = 0; i < 120; ++i) hot.Used(Key(1), kStart);
  EXPECT_NEAR(hot.UsesPerSecond(Key(1), kStart), 2, 0.1);
}

}  // namespace
}  // namespace tarn::kvstore
