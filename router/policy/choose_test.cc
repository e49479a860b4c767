#include "router/policy/choose.h"

#include <gtest/gtest.h>

#include <map>

namespace tarn::router {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(100);
constexpr BlockShape kBlock = {.tokens = 16, .bytes = 1e5};

const NodeLoad kPrefill = {
    .hbm_pages = 1000, .prefill_us_per_token = 100, .pull_bytes_per_us = 1000};
const NodeLoad kDecode = {
    .hbm_pages = 100, .max_running = 8, .step_us = 1000, .pull_bytes_per_us = 1000};

class ChooseTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, NodeRole role, const NodeLoad& load) {
    view_.Join(NodeId(name), role);
    view_.SetConnected(NodeId(name), true);
    view_.Report(NodeId(name), load, kNow);
  }
  void AddTwoOfEach() {
    Add("p0", NodeRole::kPrefill, kPrefill);
    Add("p1", NodeRole::kPrefill, kPrefill);
    Add("d0", NodeRole::kDecode, kDecode);
    Add("d1", NodeRole::kDecode, kDecode);
  }
  RouteResult Ask(const RouteRequest& request) {
    return Choose(request, view_, matches_, kBlock, kNow);
  }
  RouteDecision Decide(const RouteRequest& request) {
    return std::get<RouteDecision>(Ask(request));
  }
  Refusal Refused(const RouteRequest& request) { return std::get<Refusal>(Ask(request)); }

  ClusterView view_;
  std::vector<kvstore::NodeMatch> matches_;
};

TEST_F(ChooseTest, TiesGoToTheLowerId) {
  AddTwoOfEach();
  const RouteDecision decision = Decide({.tokens = 100, .max_new_tokens = 10});
  EXPECT_EQ(decision.prefill.node, NodeId("p0"));
  EXPECT_EQ(decision.decode->node, NodeId("d0"));
  EXPECT_EQ(decision.decode->pages, 7);
}

TEST_F(ChooseTest, AHeldPrefixAttractsUntilTheQueueOutweighsIt) {
  AddTwoOfEach();
  matches_ = {{.node = NodeId("p1"), .blocks = 50, .hbm_blocks = 50, .memory_blocks = 50}};
  NodeLoad busy = kPrefill;
  // Pulling its 50 blocks takes 5.2 ms, so p1's lead is worth 52 waiting tokens.
  busy.waiting_tokens = 51;
  Add("p1", NodeRole::kPrefill, busy);
  EXPECT_EQ(Decide({.tokens = 1000}).prefill.node, NodeId("p1"));
  busy.waiting_tokens = 53;
  Add("p1", NodeRole::kPrefill, busy);
  const RouteDecision decision = Decide({.tokens = 1000});
  EXPECT_EQ(decision.prefill.node, NodeId("p0"));
  EXPECT_EQ(decision.prefill.predicted.pull_blocks, 50);
}

TEST_F(ChooseTest, ASlowLinkComputes) {
  AddTwoOfEach();
  NodeLoad slow = kPrefill;
  slow.pull_bytes_per_us = 10;  // a block: 10 ms to pull, 1.6 ms to compute
  Add("p0", NodeRole::kPrefill, slow);
  Add("p1", NodeRole::kPrefill, slow);
  matches_ = {{.node = NodeId("s0"), .blocks = 50}};
  EXPECT_EQ(Decide({.tokens = 1000}).prefill.predicted.pull_blocks, 0);
}

TEST_F(ChooseTest, OneSharedBlockDoesNotGatherAllLoad) {
  AddTwoOfEach();
  matches_ = {{.node = NodeId("p0"), .blocks = 1, .hbm_blocks = 1, .memory_blocks = 1}};
  std::map<NodeId, int> counts;
  for (uint64_t i = 0; i < 100; ++i) {
    const RouteDecision decision = Decide({.tokens = 1000, .wants_decode = false});
    ++counts[decision.prefill.node];
    view_.Place(decision.prefill.node, RequestId(i),
                {.tokens = decision.prefill.predicted.compute_tokens});
  }
  EXPECT_EQ(counts[NodeId("p0")], 50);
}

TEST_F(ChooseTest, PlacementsSpreadOverDecodeNodesUntilAllAreFull) {
  AddTwoOfEach();
  const RouteRequest request = {.tokens = 16, .max_new_tokens = 16};
  std::map<NodeId, int> counts;
  for (uint64_t i = 0; i < 16; ++i) {
    const RouteDecision decision = Decide(request);
    ++counts[decision.decode->node];
    view_.Place(decision.decode->node, RequestId(i), {.pages = decision.decode->pages});
  }
  EXPECT_EQ(counts[NodeId("d0")], 8);
  EXPECT_EQ(counts[NodeId("d1")], 8);
  const Refusal refusal = Refused(request);
  EXPECT_TRUE(absl::IsResourceExhausted(refusal.status)) << refusal.status;
  EXPECT_GT(refusal.retry_after, absl::ZeroDuration());
  view_.End(NodeId("d1"), RequestId(1));
  EXPECT_EQ(Decide(request).decode->node, NodeId("d1"));
}

TEST_F(ChooseTest, AvoidsWhatHasFailed) {
  AddTwoOfEach();
  RouteRequest request = {.tokens = 100, .wants_decode = false, .avoid_prefill = {NodeId("p0")}};
  EXPECT_EQ(Decide(request).prefill.node, NodeId("p1"));
  EXPECT_FALSE(Decide(request).decode.has_value());
  request.avoid_prefill.push_back(NodeId("p1"));
  EXPECT_TRUE(absl::IsUnavailable(Refused(request).status));
}

TEST_F(ChooseTest, SaysWhatIsMissing) {
  EXPECT_TRUE(absl::IsUnavailable(Refused({.tokens = 1}).status));
  AddTwoOfEach();
  const Refusal never = Refused({.tokens = 1600, .max_new_tokens = 1});
  EXPECT_TRUE(absl::IsInvalidArgument(never.status)) << never.status;
  EXPECT_EQ(never.retry_after, absl::ZeroDuration());
}

TEST_F(ChooseTest, RefusesWhatCannotBeInTime) {
  AddTwoOfEach();
  // 100 ms to compute.
  EXPECT_TRUE(absl::IsResourceExhausted(
      Refused({.tokens = 1000, .time_left = absl::Milliseconds(99)}).status));
  EXPECT_EQ(Decide({.tokens = 1000, .time_left = absl::Milliseconds(101)}).prefill.node,
            NodeId("p0"));
}

TEST_F(ChooseTest, RefusesWhatWouldMissItsClass) {
  AddTwoOfEach();
  const Slo tight = {.ttft = absl::Milliseconds(99)};
  const Refusal late = Refused({.tokens = 1000, .slo = tight});
  EXPECT_EQ(late.reason, RefusalReason::kTtft);
  EXPECT_TRUE(absl::IsResourceExhausted(late.status));
  EXPECT_GT(late.retry_after, absl::ZeroDuration());
  // The deadline is the nearer one.
  EXPECT_EQ(Refused({.tokens = 1000, .time_left = absl::Milliseconds(50), .slo = tight}).reason,
            RefusalReason::kDeadline);
}

TEST_F(ChooseTest, ADecodeNodeWithinTheClassIsTakenBeforeANearerOne) {
  Add("p0", NodeRole::kPrefill, kPrefill);
  NodeLoad slow = kDecode;
  slow.step_time = {.base_us = 30'000};
  NodeLoad quick = kDecode;
  quick.step_time = {.base_us = 20'000};
  Add("d0", NodeRole::kDecode, slow);
  Add("d1", NodeRole::kDecode, quick);
  // The slow one has nearly all of a long prompt; the other has yet to pull it over a slow link.
  quick.pull_bytes_per_us = 1;
  Add("d1", NodeRole::kDecode, quick);
  matches_ = {{.node = NodeId("d0"), .blocks = 60, .hbm_blocks = 60, .memory_blocks = 60}};
  RouteRequest request = {.tokens = 1000, .max_new_tokens = 10};
  EXPECT_EQ(Decide(request).decode->node, NodeId("d0"));
  request.slo.tpot = absl::Milliseconds(25);
  EXPECT_EQ(Decide(request).decode->node, NodeId("d1"));
  request.slo.tpot = absl::Milliseconds(15);
  EXPECT_EQ(Refused(request).reason, RefusalReason::kTpot);
}

TEST_F(ChooseTest, WhatWaitsInTheRouterDelaysTheFirstToken) {
  AddTwoOfEach();
  // Two nodes of 10,000 tokens a second: 1,000 ahead take 50 ms, the request itself 10 ms.
  const RouteRequest request = {
      .tokens = 100, .slo = {.ttft = absl::Milliseconds(61)}, .tokens_ahead = 1000};
  EXPECT_NEAR(Decide(request).prefill.predicted.total_us(), 60'000, 1);
  RouteRequest later = request;
  later.tokens_ahead = 1100;
  EXPECT_EQ(Refused(later).reason, RefusalReason::kTtft);
}

TEST_F(ChooseTest, HoldsWhileEveryNodeHasEnoughToDo) {
  AddTwoOfEach();
  NodeLoad busy = kPrefill;
  busy.waiting_tokens = 3000;  // 300 ms
  Add("p0", NodeRole::kPrefill, busy);
  const RouteRequest request = {
      .tokens = 100, .may_wait = true, .max_node_queue = absl::Milliseconds(100)};
  EXPECT_EQ(Decide(request).prefill.node, NodeId("p1"));
  Add("p1", NodeRole::kPrefill, busy);
  const RouteResult result = Ask(request);
  ASSERT_TRUE(std::holds_alternative<Hold>(result));
  EXPECT_EQ(std::get<Hold>(result).wait, absl::Milliseconds(200));
  EXPECT_EQ(std::get<Hold>(result).compute_tokens, 100);
}

TEST_F(ChooseTest, HoldsForASeatThatWillBeFreeInTime) {
  AddTwoOfEach();
  NodeLoad full = kDecode;
  full.running = full.max_running;
  full.next_seat = absl::Milliseconds(50);
  Add("d0", NodeRole::kDecode, full);
  full.next_seat = absl::Milliseconds(80);
  Add("d1", NodeRole::kDecode, full);
  RouteRequest request = {.tokens = 100, .max_new_tokens = 10};
  EXPECT_EQ(Refused(request).reason, RefusalReason::kNoRoom);
  request.may_wait = true;
  EXPECT_EQ(std::get<Hold>(Ask(request)).wait, absl::Milliseconds(50));
  request.slo.ttft = absl::Milliseconds(49);
  EXPECT_EQ(Refused(request).reason, RefusalReason::kNoRoom);
}

TEST_F(ChooseTest, SeveralRoutersSpreadOverEqualNodes) {
  AddTwoOfEach();
  Random random(1);
  std::map<NodeId, int> counts;
  for (int i = 0; i < 1000; ++i) {
    const RouteResult result = Choose({.tokens = 1000}, view_, matches_, kBlock, kNow, &random);
    ++counts[std::get<RouteDecision>(result).prefill.node];
  }
  EXPECT_NEAR(counts[NodeId("p0")], 500, 100);
  // A clearly better one is always taken.
  NodeLoad busy = kPrefill;
  busy.waiting_tokens = 200;
  Add("p0", NodeRole::kPrefill, busy);
  for (int i = 0; i < 100; ++i) {
    const RouteResult result = Choose({.tokens = 1000}, view_, matches_, kBlock, kNow, &random);
    EXPECT_EQ(std::get<RouteDecision>(result).prefill.node, NodeId("p1"));
  }
}

TEST_F(ChooseTest, ExplainsEveryNode) {
  AddTwoOfEach();
  view_.SetConnected(NodeId("p1"), false);
  matches_ = {{.node = NodeId("p0"), .blocks = 5, .hbm_blocks = 5, .memory_blocks = 5}};
  const RouteRequest request = {.tokens = 100, .max_new_tokens = 10};
  const Explanation why = Explain(request, view_, matches_, kBlock, kNow);
  ASSERT_EQ(why.prefill.size(), 2u);
  EXPECT_EQ(why.prefill[0].holdings.local, 5);
  EXPECT_EQ(why.prefill[0].predicted.compute_tokens, 20);
  EXPECT_EQ(why.prefill[1].eligibility, Eligibility::kDisconnected);
  ASSERT_EQ(why.decode.size(), 2u);
  const auto& decision = std::get<RouteDecision>(why.result);
  EXPECT_EQ(decision.prefill.node, Decide(request).prefill.node);
  EXPECT_EQ(decision.prefill.predicted.total_us(), why.prefill[0].predicted.total_us());
}

}  // namespace
}  // namespace tarn::router
