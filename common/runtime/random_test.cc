#include "common/runtime/random.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

namespace tarn {
namespace {

// The standard fixes the 10,000th draw of a default-seeded mt19937_64 (rand.predef).
TEST(Random, IsTheStandardsMersenneTwister) {
  Random random(5489);
  for (int i = 0; i < 9999; ++i) random.Next();
  EXPECT_EQ(random.Next(), 9981545732273789042u);
}

TEST(Random, UniformIntHitsEveryValueOfItsRangeAboutEqually) {
  Random random(1);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) counts[random.UniformInt(-3, 3) + 3]++;
  for (const int count : counts) {
    EXPECT_GT(count, 9'500);
    EXPECT_LT(count, 10'500);
  }
}

TEST(Random, UniformIntCoversTheWholeRange) {
  using Limits = std::numeric_limits<int64_t>;
  Random random(2);
  bool negative = false;
  bool positive = false;
  for (int i = 0; i < 100; ++i) {
    const int64_t draw = random.UniformInt(Limits::min(), Limits::max());
    negative |= draw < 0;
    positive |= draw > 0;
  }
  EXPECT_TRUE(negative && positive);
  EXPECT_EQ(random.UniformInt(5, 5), 5);
}

TEST(Random, DoublesStayBelowOneAndAverageAHalf) {
  Random random(3);
  double sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double draw = random.UniformDouble();
    ASSERT_GE(draw, 0);
    ASSERT_LT(draw, 1);
    sum += draw;
  }
  EXPECT_NEAR(sum / 10'000, 0.5, 0.02);
}

TEST(Random, FillsOddSizesAndRepeatsForASeed) {
  std::vector<std::byte> a(13), b(13);
  Random(4).Fill(a);
  Random(4).Fill(b);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, std::vector<std::byte>(13));
}

}  // namespace
}  // namespace tarn
