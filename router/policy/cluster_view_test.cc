#include "router/policy/cluster_view.h"

#include <gtest/gtest.h>

namespace tarn::router {
namespace {

const NodeId kNode("d0");
const absl::Time kNow = absl::FromUnixSeconds(100);
constexpr StepTime kOneUs = {.us_per_token = 1};

NodeLoad Reported(int running, int pages) {
  return {.hbm_pages = 100, .hbm_pages_reserved = pages, .running = running};
}

TEST(ClusterView, PlacementsCountUntilTheNextReport) {
  ClusterView view;
  view.Join(kNode, NodeRole::kDecode);
  view.Report(kNode, Reported(2, 20), kNow);
  view.Place(kNode, RequestId(1), {.tokens = 7, .pages = 5});
  EXPECT_EQ(view.Find(kNode)->running(), 3);
  EXPECT_EQ(view.Find(kNode)->pages_taken(), 25);
  EXPECT_EQ(view.Find(kNode)->waiting_us(kNow, kOneUs), 7);

  view.Report(kNode, Reported(3, 25), kNow);
  EXPECT_EQ(view.Find(kNode)->running(), 3);
  EXPECT_EQ(view.Find(kNode)->pages_taken(), 25);
  EXPECT_EQ(view.Find(kNode)->waiting_us(kNow, kOneUs), 0);
}

TEST(ClusterView, WhatEndsBetweenReportsIsGivenBack) {
  ClusterView view;
  view.Join(kNode, NodeRole::kDecode);
  view.Place(kNode, RequestId(1), {.pages = 5});
  view.Report(kNode, Reported(1, 5), kNow);
  view.End(kNode, RequestId(1));
  view.End(kNode, RequestId(1));
  EXPECT_EQ(view.Find(kNode)->running(), 0);
  EXPECT_EQ(view.Find(kNode)->pages_taken(), 0);
  view.Report(kNode, Reported(0, 0), kNow);
  EXPECT_EQ(view.Find(kNode)->running(), 0);

  view.Place(kNode, RequestId(2), {.pages = 5});
  view.End(kNode, RequestId(2));
  EXPECT_EQ(view.Find(kNode)->pages_taken(), 0);
}

TEST(ClusterView, WaitingWorkShrinksWithTime) {
  ClusterView view;
  view.Join(kNode, NodeRole::kPrefill);
  view.Report(kNode, {.waiting_tokens = 1000}, kNow);
  const StepTime two = {.us_per_token = 2};
  EXPECT_EQ(view.Find(kNode)->waiting_us(kNow + absl::Microseconds(400), two), 1600);
  EXPECT_EQ(view.Find(kNode)->waiting_us(kNow + absl::Seconds(9), two), 0);
}

TEST(ClusterView, WorkCountsWhatTokensAttendTo) {
  ClusterView view;
  view.Join(kNode, NodeRole::kPrefill);
  view.Report(kNode, {.waiting_tokens = 100, .waiting_attended = 5000, .step_tokens = 50}, kNow);
  view.Place(kNode, RequestId(1), {.tokens = 10, .attended = 1000});
  const StepTime step = {.base_us = 20, .us_per_token = 3, .us_per_attended = 0.01};
  // Two steps, and a fifth of one.
  EXPECT_DOUBLE_EQ(view.Find(kNode)->waiting_us(kNow, step), (40 + 300 + 50) + (4 + 30 + 10));
}

TEST(ClusterView, ANewLifeKnowsNothing) {
  ClusterView view;
  view.Join(kNode, NodeRole::kDecode);
  view.SetConnected(kNode, true);
  view.Report(kNode, Reported(2, 20), kNow);
  view.Place(kNode, RequestId(1), {.pages = 5});
  view.Join(kNode, NodeRole::kDecode);
  EXPECT_FALSE(view.Find(kNode)->connected());
  EXPECT_FALSE(view.Find(kNode)->reported());
  EXPECT_EQ(view.Find(kNode)->pages_taken(), 0);
  view.Leave(kNode);
  EXPECT_EQ(view.Find(kNode), nullptr);
  view.Place(kNode, RequestId(1), {});  // unknown: ignored
}

}  // namespace
}  // namespace tarn::router
