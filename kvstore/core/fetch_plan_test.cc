#include "kvstore/core/fetch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace tarn::kvstore {
namespace {

const SourceId kArena{NodeId(), Tier::kHbm};
const SourceId kSsd{NodeId(), Tier::kSsd};
const SourceId kPeer{NodeId("b"), Tier::kDram};

class FetchPlanTest : public testing::Test {
 protected:
  FetchPlan Plan(const std::vector<std::vector<SourceId>>& sources) {
    FetchCosts costs;
    costs.compute_block = compute_;
    costs.fetch = [this](const SourceId& source, int blocks) {
      return first_[source] + blocks * each_[source];
    };
    return PlanFetch(sources, costs);
  }
  static int Fetched(const FetchPlan& plan) {
    return static_cast<int>(std::count(plan.fetch.begin(), plan.fetch.end(), true));
  }

  absl::Duration compute_ = absl::Milliseconds(10);
  std::map<SourceId, absl::Duration> first_, each_;  // arena: zero
};

TEST_F(FetchPlanTest, QuickSourcesAreFetched) {
  each_[kPeer] = absl::Milliseconds(1);
  FetchPlan plan = Plan({{kPeer}, {kPeer}, {}, {}});
  EXPECT_EQ(plan.fetch, (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(plan.expected, absl::Milliseconds(2));
  EXPECT_EQ(plan.worth, absl::Milliseconds(20));
}

TEST_F(FetchPlanTest, ASlowTierIsLeftAlone) {
  each_[kSsd] = absl::Milliseconds(11);
  FetchPlan plan = Plan({{kSsd}, {kSsd}, {kSsd}});
  EXPECT_EQ(Fetched(plan), 0);
  EXPECT_EQ(plan.expected, absl::ZeroDuration());
}

TEST_F(FetchPlanTest, ALongWaitAtTheStartPaysForLongPrefixesOnly) {
  first_[kSsd] = absl::Milliseconds(35);
  each_[kSsd] = absl::Milliseconds(1);
  EXPECT_EQ(Fetched(Plan({{kSsd}, {kSsd}})), 0) << "37 ms against 20";
  EXPECT_EQ(Fetched(Plan({{kSsd}, {kSsd}, {kSsd}, {kSsd}, {kSsd}})), 5) << "40 ms against 50";
}

TEST_F(FetchPlanTest, EndsWhereTheSlowTierBegins) {
  each_[kPeer] = absl::Milliseconds(1);
  each_[kSsd] = absl::Milliseconds(30);
  FetchPlan plan = Plan({{kPeer}, {kPeer}, {kSsd}, {kSsd}});
  EXPECT_EQ(plan.fetch, (std::vector<bool>{true, true, false, false}));
}

TEST_F(FetchPlanTest, WhatIsInPlaceCostsNothingAnywhere) {
  each_[kSsd] = absl::Milliseconds(30);
  FetchPlan plan = Plan({{kArena}, {kSsd}, {kArena, kSsd}});
  EXPECT_EQ(plan.fetch, (std::vector<bool>{true, false, true}));
}

TEST_F(FetchPlanTest, SourcesDeliverSideBySide) {
  each_[kPeer] = each_[kSsd] = absl::Milliseconds(8);
  FetchPlan plan = Plan({{kPeer, kSsd}, {kPeer, kSsd}, {kPeer, kSsd}, {kPeer, kSsd}});
  EXPECT_EQ(Fetched(plan), 4);
  EXPECT_EQ(plan.expected, absl::Milliseconds(16));
}

TEST_F(FetchPlanTest, FetchesAllWhileTheComputeRateIsUnknown) {
  compute_ = absl::ZeroDuration();
  each_[kSsd] = absl::Seconds(1);
  FetchPlan plan = Plan({{kSsd}, {kSsd}});
  EXPECT_EQ(Fetched(plan), 2);
  EXPECT_EQ(plan.worth, absl::InfiniteDuration());
}

}  // namespace
}  // namespace tarn::kvstore
