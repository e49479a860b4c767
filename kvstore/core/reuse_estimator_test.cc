#include "kvstore/core/reuse_estimator.h"

#include <gtest/gtest.h>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Time kStart = absl::UnixEpoch();

BlockKey Key(uint64_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  std::memcpy(key.bytes.data() + 8, &number, sizeof(number));
  return key;
}

double WorthAt(const ReuseEstimator& estimator, int block_class, absl::Duration age) {
  return estimator.Worth(block_class, AgeScale::BucketOf(age));
}

TEST(AgeScaleTest, BucketsBeginWhereTheySay) {
  EXPECT_EQ(AgeScale::BucketOf(absl::ZeroDuration()), 0);
  EXPECT_EQ(AgeScale::BucketOf(-absl::Seconds(1)), 0);
  EXPECT_EQ(AgeScale::BucketOf(absl::Hours(1000)), AgeScale::kBuckets - 1);
  for (int i = 1; i < AgeScale::kBuckets; ++i) {
    EXPECT_LT(AgeScale::Start(i - 1), AgeScale::Start(i));
    EXPECT_EQ(AgeScale::BucketOf(AgeScale::Start(i) + absl::Nanoseconds(1)), i);
    EXPECT_EQ(AgeScale::BucketOf(AgeScale::Start(i) - absl::Microseconds(1)), i - 1);
  }
}

TEST(ReuseEstimatorTest, KnowingNothingTheOldestIsWorthLeast) {
  const ReuseEstimator estimator({.group_of_class = {0, 0}});
  for (int i = 1; i < AgeScale::kBuckets - 1; ++i) {
    EXPECT_LT(estimator.Worth(0, i), estimator.Worth(0, i - 1));
    EXPECT_EQ(estimator.Worth(0, i), estimator.Worth(1, i));
  }
}

// One block in two comes back after a minute, of class 1; of class 0, none does.
TEST(ReuseEstimatorTest, LearnsClassesAndAges) {
  ReuseEstimator estimator({.group_of_class = {0, 0}});
  Random random(1);
  absl::Time now = kStart;
  for (uint64_t i = 0; i < 20'000; ++i) {
    now += absl::Milliseconds(100);
    estimator.Rested(Key(i), static_cast<int>(i % 2), now);
    if (i >= 600 && (i % 4) == 1) estimator.Used(Key(i - 600), now);
  }
  estimator.Refresh();
  const double worth = WorthAt(estimator, 1, absl::Seconds(1));
  EXPECT_NEAR(worth, 0.5 / 60, 0.3 * 0.5 / 60) << "half a use a minute";
  EXPECT_GT(WorthAt(estimator, 1, absl::Seconds(50)), 2 * worth) << "the nearer the better";
  EXPECT_LT(WorthAt(estimator, 1, absl::Seconds(100)), worth / 2) << "it did not come";
  EXPECT_LT(WorthAt(estimator, 0, absl::Seconds(1)), worth / 4);
}

// What comes back later than blocks stay is seen all the same: keys are watched, not pages.
TEST(ReuseEstimatorTest, ForgetsTheOldestBeyondItsBound) {
  ReuseEstimator estimator({.group_of_class = {0}, .watched = 100});
  absl::Time now = kStart;
  for (uint64_t i = 0; i < 1000; ++i) {
    now += absl::Seconds(1);
    estimator.Rested(Key(i), 0, now);
    if (i >= 150) estimator.Used(Key(i - 150), now);  // forgotten: teaches nothing
  }
  estimator.Refresh();
  EXPECT_LT(WorthAt(estimator, 0, absl::Seconds(60)), 0.1 / 60);
}

TEST(ReuseEstimatorTest, FollowsALoadThatChanges) {
  ReuseEstimator estimator({.group_of_class = {0}, .watched = 500});
  absl::Time now = kStart;
  uint64_t i = 0;
  auto run = [&](bool come_back) {
    for (int n = 0; n < 10'000; ++n, ++i) {
      now += absl::Milliseconds(100);
      estimator.Rested(Key(i), 0, now);
      if (come_back && i >= 100) estimator.Used(Key(i - 100), now);
    }
    estimator.Refresh();
    return WorthAt(estimator, 0, absl::Seconds(1));
  };
  const double before = run(false);
  const double after = run(true);
  EXPECT_GT(after, 10 * before);
  EXPECT_LT(run(false), after / 10);
}

// A sample of keys gives about the same picture.
TEST(ReuseEstimatorTest, ASampleIsEnough) {
  ReuseEstimator all({.group_of_class = {0}}), sample({.group_of_class = {0}, .sample_of = 8});
  Random random(3);
  absl::Time now = kStart;
  std::vector<BlockKey> keys(40'000);
  for (BlockKey& key : keys) random.Fill(std::as_writable_bytes(std::span(key.bytes)));
  for (size_t i = 0; i < keys.size(); ++i) {
    now += absl::Milliseconds(50);
    for (ReuseEstimator* estimator : {&all, &sample}) {
      estimator->Rested(keys[i], 0, now);
      if (i >= 400 && i % 3 == 0) estimator->Used(keys[i - 400], now);
    }
  }
  EXPECT_NEAR(sample.news() * 8.0 / all.news(), 1, 0.1);
  all.Refresh();
  sample.Refresh();
  EXPECT_NEAR(WorthAt(sample, 0, absl::Seconds(1)) / WorthAt(all, 0, absl::Seconds(1)), 1, 0.15);
}

}  // namespace
}  // namespace tarn::kvstore
