#include "kvstore/core/rate_meter.h"

#include <gtest/gtest.h>

namespace tarn::kvstore {
namespace {

absl::Time At(int us) { return absl::UnixEpoch() + absl::Microseconds(us); }

TEST(RateMeterTest, NothingMeasured) {
  RateMeter meter;
  EXPECT_EQ(meter.bytes_per_us(), 0);
  meter.Start(At(0));
  meter.Finish(0, At(100));
  EXPECT_EQ(meter.bytes_per_us(), 0) << "a failed transfer is no measurement";
}

TEST(RateMeterTest, OverlappingTransfersShareTheTime) {
  RateMeter meter;
  meter.Start(At(0));
  meter.Start(At(0));
  meter.Finish(1000, At(100));
  meter.Finish(1000, At(100));
  EXPECT_DOUBLE_EQ(meter.bytes_per_us(), 20);
}

TEST(RateMeterTest, IdleTimeDoesNotCount) {
  RateMeter meter;
  for (int start : {0, 1'000'000}) {
    meter.Start(At(start));
    meter.Finish(1000, At(start + 100));
  }
  EXPECT_DOUBLE_EQ(meter.bytes_per_us(), 10);
}

TEST(RateMeterTest, SmoothsAndFollows) {
  RateMeter meter;
  meter.Start(At(0));
  meter.Finish(1000, At(100));
  meter.Start(At(200));
  meter.Finish(2000, At(300));
  EXPECT_GT(meter.bytes_per_us(), 10);
  EXPECT_LT(meter.bytes_per_us(), 20);
  for (int i = 1; i < 50; ++i) {
    meter.Start(At(i * 1000));
    meter.Finish(2000, At(i * 1000 + 100));
  }
  EXPECT_NEAR(meter.bytes_per_us(), 20, 0.1);
}

TEST(RateMeterTest, MeasuresWithinALongSpell) {
  RateMeter meter;
  meter.Start(At(0));
  meter.Start(At(0));
  meter.Finish(50'000, At(50'000));
  EXPECT_DOUBLE_EQ(meter.bytes_per_us(), 1);
  EXPECT_EQ(meter.in_flight(), 1);
}

}  // namespace
}  // namespace tarn::kvstore
