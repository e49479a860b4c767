#include "router/policy/filters.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn::router {
namespace {

const NodeId kNode("n");

class FiltersTest : public ::testing::Test {
 protected:
  FiltersTest() { view_.Join(kNode, NodeRole::kDecode); }
  void Report(const NodeLoad& load) {
    view_.SetConnected(kNode, true);
    view_.Report(kNode, load, absl::UnixEpoch());
  }
  Eligibility JudgeFor(const Demand& demand) { return Judge(kNode, *view_.Find(kNode), demand); }
  ClusterView view_;
};

TEST_F(FiltersTest, OnlyConnectedNodesOfTheRole) {
  EXPECT_EQ(JudgeFor({.role = NodeRole::kPrefill}), Eligibility::kOtherRole);
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode}), Eligibility::kDisconnected);
  view_.SetConnected(kNode, true);
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .pages = 1000}), Eligibility::kEligible);
}

TEST_F(FiltersTest, NeitherDrainingNorAvoided) {
  Report({.draining = true});
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode}), Eligibility::kDraining);
  const std::vector<NodeId> avoid = {kNode};
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .avoid = avoid}), Eligibility::kAvoided);
}

TEST_F(FiltersTest, ASeatIsPagesAndAPlaceInTheBatch) {
  Report({.hbm_pages = 10, .hbm_pages_reserved = 6, .running = 1, .max_running = 2});
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .pages = 4}), Eligibility::kEligible);
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .pages = 5}), Eligibility::kFull);
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .pages = 11}), Eligibility::kTooSmall);
  view_.Place(kNode, RequestId(1), {.pages = 1});
  EXPECT_EQ(JudgeFor({.role = NodeRole::kDecode, .pages = 1}), Eligibility::kFull);
}

TEST_F(FiltersTest, PrefillNodesQueue) {
  view_.Join(kNode, NodeRole::kPrefill);
  Report({.hbm_pages = 10, .hbm_pages_reserved = 10, .running = 2, .max_running = 2});
  EXPECT_EQ(JudgeFor({.role = NodeRole::kPrefill, .pages = 10}), Eligibility::kEligible);
  EXPECT_EQ(JudgeFor({.role = NodeRole::kPrefill, .pages = 11}), Eligibility::kTooSmall);
}

TEST(PagesFor, RoundsUp) {
  EXPECT_EQ(PagesFor(1, {.tokens = 16}), 1);
  EXPECT_EQ(PagesFor(16, {.tokens = 16}), 1);
  EXPECT_EQ(PagesFor(17, {.tokens = 16}), 2);
}

}  // namespace
}  // namespace tarn::router
