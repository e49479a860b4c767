#include "common/base/step_time.h"

#include <gtest/gtest.h>

namespace tarn {
namespace {

using enum StepTimeFit::Prior;

absl::Duration Us(double us) { return absl::Nanoseconds(us * 1000); }

TEST(StepTimeTest, NothingIsKnownAtFirst) { EXPECT_FALSE(StepTimeFit(kWork).Fit().measured()); }

TEST(StepTimeTest, AttendedIsTheSumOverTokens) {
  EXPECT_EQ(AttendedBy(0, 1), 0);
  EXPECT_EQ(AttendedBy(0, 4), 0 + 1 + 2 + 3);
  EXPECT_EQ(AttendedBy(10, 12), 10 + 11);
}

TEST(StepTimeTest, FindsTheThreeParts) {
  StepTimeFit fit(kWork);
  for (int i = 0; i < 300; ++i) {
    const double tokens = 1 + i % 512;
    const double attended = tokens * (i * 37 % 4000);
    fit.Add(tokens, attended, Us(200 + 20 * tokens + 0.003 * attended));
  }
  const StepTime time = fit.Fit();
  EXPECT_NEAR(time.base_us, 200, 20);
  EXPECT_NEAR(time.us_per_token, 20, 0.2);
  EXPECT_NEAR(time.us_per_attended, 0.003, 3e-5);
  EXPECT_NEAR(time.Predict(512, 1e6), 200 + 10'240 + 3000, 100);
  EXPECT_NEAR(time.PredictInSteps(1024, 1e6, 512), 400 + 20'480 + 3000, 200);
}

TEST(StepTimeTest, EqualStepsAreTakenAsWorkNotAsFixedCost) {
  StepTimeFit fit(kWork);
  for (int i = 0; i < 50; ++i) fit.Add(512, 0, Us(10'240));
  const StepTime time = fit.Fit();
  EXPECT_NEAR(time.Predict(512, 0), 10'240, 30);
  EXPECT_NEAR(time.Predict(256, 0), 5120, 60);
}

TEST(StepTimeTest, OrAsFixedCost) {
  StepTimeFit fit(kFixedCost);
  for (int i = 0; i < 50; ++i) fit.Add(1, 1000 + i, Us(5000));
  EXPECT_NEAR(fit.Fit().Predict(2, 2000), 5000, 100);
}

TEST(StepTimeTest, NoPartIsNegative) {
  StepTimeFit fit(kWork);
  // Less time for more work, as a step that took long by chance makes it look.
  for (int i = 1; i <= 20; ++i) fit.Add(i, i * 100.0, Us(1000 - 10 * i));
  const StepTime time = fit.Fit();
  EXPECT_GE(time.base_us, 0);
  EXPECT_GE(time.us_per_token, 0);
  EXPECT_GE(time.us_per_attended, 0);
  EXPECT_NEAR(time.Predict(10, 1000), 900, 50);
}

TEST(StepTimeTest, FollowsAMachineThatChanges) {
  StepTimeFit fit(kWork, 20);
  for (int i = 0; i < 200; ++i) fit.Add(1 + i % 100, 0, Us(10.0 * (1 + i % 100)));
  for (int i = 0; i < 200; ++i) fit.Add(1 + i % 100, 0, Us(30.0 * (1 + i % 100)));
  EXPECT_NEAR(fit.Fit().Predict(100, 0), 3000, 100);
}

}  // namespace
}  // namespace tarn
