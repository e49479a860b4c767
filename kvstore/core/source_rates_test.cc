#include "kvstore/core/source_rates.h"

#include <gtest/gtest.h>

#include <string>

namespace tarn::kvstore {
namespace {

constexpr uint64_t kBlock = 1 << 20;

class SourceRatesTest : public testing::Test {
 protected:
  // One block, `time` long.
  void Move(const SourceId& source, absl::Duration time, uint64_t bytes = kBlock) {
    rates_.Start(source, now_);
    now_ += time;
    rates_.Finish(source, bytes, now_);
  }

  SourceRates rates_{8};
  absl::Time now_ = absl::UnixEpoch();
  const SourceId ssd_{NodeId(), Tier::kSsd};
  const SourceId dram_{NodeId(), Tier::kDram};
  const SourceId peer_{NodeId("b"), Tier::kDram};
};

TEST_F(SourceRatesTest, GuessesOrderTheTiers) {
  EXPECT_LT(rates_.Expect(dram_, 1, kBlock, now_), rates_.Expect(peer_, 1, kBlock, now_));
  EXPECT_LT(rates_.Expect(peer_, 1, kBlock, now_), rates_.Expect(ssd_, 1, kBlock, now_));
  EXPECT_EQ(rates_.BytesPerUs(ssd_), 0);
}

TEST_F(SourceRatesTest, MeasuredRatesReplaceThem) {
  for (int i = 0; i < 50; ++i) Move(peer_, absl::Milliseconds(20));
  for (int i = 0; i < 50; ++i) Move(ssd_, absl::Milliseconds(1));
  EXPECT_LT(rates_.Expect(ssd_, 1, kBlock, now_), rates_.Expect(peer_, 1, kBlock, now_));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(rates_.Expect(ssd_, 4, kBlock, now_)), 4, 0.5);
  EXPECT_NEAR(rates_.BytesPerUs(peer_), kBlock / 20000.0, 5);
}

TEST_F(SourceRatesTest, WhatIsUnderWayComesFirst) {
  absl::Duration idle = rates_.Expect(peer_, 1, kBlock, now_);
  for (int i = 0; i < 3; ++i) rates_.Start(peer_, now_);
  EXPECT_NEAR(absl::FDivDuration(rates_.Expect(peer_, 1, kBlock, now_), idle), 4, 1e-3);
}

TEST_F(SourceRatesTest, FailuresCostAndOneSuccessForgives) {
  Move(peer_, absl::Milliseconds(1));
  absl::Duration good = rates_.Expect(peer_, 1, kBlock, now_);
  Move(peer_, absl::Milliseconds(1), 0);
  Move(peer_, absl::Milliseconds(1), 0);
  EXPECT_NEAR(absl::FDivDuration(rates_.Expect(peer_, 1, kBlock, now_), good), 4, 1e-3);
  for (int i = 0; i < 40; ++i) Move(peer_, absl::Milliseconds(1), 0);
  EXPECT_LE(rates_.Expect(peer_, 1, kBlock, now_), 1024 * good);
  Move(peer_, absl::Milliseconds(1));
  EXPECT_LE(rates_.Expect(peer_, 1, kBlock, now_), 2 * good);
}

TEST_F(SourceRatesTest, TimeForgivesWhereNobodyAsksAnyMore) {
  Move(peer_, absl::Milliseconds(1));
  absl::Duration good = rates_.Expect(peer_, 1, kBlock, now_);
  for (int i = 0; i < 3; ++i) Move(peer_, absl::Milliseconds(1), 0);
  now_ += absl::Milliseconds(1100);
  EXPECT_NEAR(absl::FDivDuration(rates_.Expect(peer_, 1, kBlock, now_), good), 4, 1e-3);
  now_ += absl::Seconds(60);
  EXPECT_NEAR(absl::FDivDuration(rates_.Expect(peer_, 1, kBlock, now_), good), 1, 1e-3);
}

TEST_F(SourceRatesTest, ForgetsIdleSourcesForOthers) {
  rates_.Start(peer_, now_);
  for (int i = 0; i < 100; ++i) {
    Move({NodeId("node-" + std::to_string(i)), Tier::kHbm}, absl::Milliseconds(1));
  }
  rates_.Finish(peer_, kBlock, now_ + absl::Milliseconds(1));
  EXPECT_GT(rates_.BytesPerUs({NodeId("node-99"), Tier::kHbm}), 0);
  EXPECT_EQ(rates_.BytesPerUs({NodeId("node-0"), Tier::kHbm}), 0);
}

}  // namespace
}  // namespace tarn::kvstore
