#include "router/policy/predict.h"

#include <gtest/gtest.h>

namespace tarn::router {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(100);
constexpr BlockShape kBlock = {.tokens = 16, .bytes = 1e6};

class PredictTest : public ::testing::Test {
 protected:
  const NodeView& Node(NodeRole role, const NodeLoad& load) {
    view_.Join(NodeId("n"), role);
    view_.Report(NodeId("n"), load, kNow);
    return *view_.Find(NodeId("n"));
  }
  ClusterView view_;
};

TEST_F(PredictTest, SumsQueueFetchAndCompute) {
  const NodeView& node = Node(NodeRole::kPrefill, {.waiting_tokens = 100});
  const Rates rates = {.step = {.us_per_token = 100}, .pull_bytes_per_us = 5000};
  // 10 blocks and 3 tokens: 2 in HBM, 2 more in own DRAM, 3 more elsewhere.
  const PrefillPrediction prediction =
      PredictPrefill(node, rates, {.local_hbm = 2, .local = 4, .anywhere = 7}, 163, kBlock, kNow);
  EXPECT_EQ(prediction.queue_us, 10'000);
  EXPECT_EQ(prediction.local_blocks, 4);
  EXPECT_EQ(prediction.pull_blocks, 3);
  // Copies: 2 MB at 10 GB/s. Pulls: 3 MB at 5 GB/s.
  EXPECT_EQ(prediction.fetch_us, 200 + kPullStartUs + 600);
  EXPECT_EQ(prediction.compute_tokens, 163 - 7 * 16);
  EXPECT_EQ(prediction.compute_us, 5100);
}

TEST_F(PredictTest, ComputesWhatIsDearerToPull) {
  const NodeView& node = Node(NodeRole::kPrefill, {});
  // A block takes 1000 us to pull and 160 us to compute.
  const Rates rates = {.step = {.us_per_token = 10}, .pull_bytes_per_us = 1000};
  const PrefillPrediction prediction =
      PredictPrefill(node, rates, {.local = 1, .anywhere = 7}, 160, kBlock, kNow);
  EXPECT_EQ(prediction.pull_blocks, 0);
  EXPECT_EQ(prediction.compute_tokens, 144);
}

TEST_F(PredictTest, TheOwnSsdIsReadWhereThatBeatsComputing) {
  const NodeView& node = Node(NodeRole::kPrefill, {});
  // A block: 160 us to compute.
  Rates rates = {
      .step = {.us_per_token = 10}, .pull_bytes_per_us = 1, .ssd_read_bytes_per_us = 1e4};
  const Holdings holdings = {.local_hbm = 2, .local = 2, .local_ssd = 6, .anywhere = 6};
  PrefillPrediction prediction = PredictPrefill(node, rates, holdings, 160, kBlock, kNow);
  EXPECT_EQ(prediction.local_blocks, 6);
  EXPECT_EQ(prediction.fetch_us, 400) << "4 MB at 10 GB/s";
  EXPECT_EQ(prediction.compute_tokens, 64);
  rates.ssd_read_bytes_per_us = 5000;  // 200 us a block
  prediction = PredictPrefill(node, rates, holdings, 160, kBlock, kNow);
  EXPECT_EQ(prediction.local_blocks, 2);
  EXPECT_EQ(prediction.fetch_us, 0);
  EXPECT_EQ(prediction.compute_tokens, 128);
}

TEST_F(PredictTest, TheStartOfAPullDecidesForShortPrefixes) {
  const NodeView& node = Node(NodeRole::kPrefill, {});
  // A block: 100 us to pull, 160 us to compute; with 200 us to start, four blocks pay and three do
  // not.
  const Rates rates = {.step = {.us_per_token = 10}, .pull_bytes_per_us = 10'000};
  EXPECT_EQ(PredictPrefill(node, rates, {.anywhere = 3}, 160, kBlock, kNow).pull_blocks, 0);
  EXPECT_EQ(PredictPrefill(node, rates, {.anywhere = 4}, 160, kBlock, kNow).pull_blocks, 4);
}

TEST_F(PredictTest, TheLastTokenIsAlwaysComputed) {
  const NodeView& node = Node(NodeRole::kPrefill, {});
  const PrefillPrediction prediction =
      PredictPrefill(node, Unmeasured(NodeRole::kPrefill),
                     {.local_hbm = 10, .local = 10, .anywhere = 10}, 160, kBlock, kNow);
  EXPECT_EQ(prediction.local_blocks, 9);
  EXPECT_EQ(prediction.compute_tokens, 16);
  EXPECT_EQ(PredictPrefill(node, Unmeasured(NodeRole::kPrefill), {.anywhere = 9}, 1, kBlock, kNow)
                .compute_tokens,
            1);
}

TEST_F(PredictTest, LateTokensCostMore) {
  const NodeView& node = Node(NodeRole::kPrefill, {.step_tokens = 100});
  const Rates rates = {.step = {.base_us = 50, .us_per_token = 10, .us_per_attended = 0.1},
                       .pull_bytes_per_us = 1e9};
  // 160 tokens are cached: 40 are computed, in one step.
  const PrefillPrediction prediction =
      PredictPrefill(node, rates, {.local_hbm = 10, .local = 10}, 200, kBlock, kNow);
  EXPECT_EQ(prediction.compute_tokens, 40);
  EXPECT_DOUBLE_EQ(prediction.compute_attended, 40 * (160 + 199) / 2.0);
  EXPECT_NEAR(prediction.compute_us, 50 + 400 + 0.1 * prediction.compute_attended, 1e-6);
  // Two steps.
  EXPECT_NEAR(PredictPrefill(node, rates, {}, 200, kBlock, kNow).compute_us,
              100 + 2000 + 0.1 * 199 * 100, 1e-6);
}

TEST_F(PredictTest, AMeasuredStepCountsBatchAndContext) {
  const NodeView& node =
      Node(NodeRole::kDecode,
           {.running = 3,
            .kv_tokens = 3000,
            .step_time = {.base_us = 100, .us_per_token = 5, .us_per_attended = 0.01}});
  const Rates rates = RatesOf(node, {.pull_bytes_per_us = 1000});
  EXPECT_DOUBLE_EQ(PredictDecode(node, rates, 0, 1000, kBlock).step_us, 100 + 20 + 40);
}

TEST_F(PredictTest, PriorsAreMeansOfTheRole) {
  view_.Join(NodeId("a"), NodeRole::kPrefill);
  view_.Join(NodeId("b"), NodeRole::kPrefill);
  view_.Join(NodeId("c"), NodeRole::kPrefill);
  view_.Join(NodeId("d"), NodeRole::kDecode);
  view_.Report(NodeId("a"), {.prefill_us_per_token = 10}, kNow);
  view_.Report(NodeId("b"), {.prefill_us_per_token = 30}, kNow);
  view_.Report(NodeId("d"), {.prefill_us_per_token = 999}, kNow);
  const Rates prior = PriorRates(view_, NodeRole::kPrefill);
  EXPECT_EQ(prior.step.us_per_token, 20);
  EXPECT_EQ(prior.pull_bytes_per_us, Unmeasured(NodeRole::kPrefill).pull_bytes_per_us);
  EXPECT_EQ(RatesOf(*view_.Find(NodeId("a")), prior).step.us_per_token, 10);
  EXPECT_EQ(RatesOf(*view_.Find(NodeId("c")), prior).step.us_per_token, 20);
}

TEST_F(PredictTest, DecodePrefersEmptierNodesAndThoseThatHoldThePrompt) {
  const NodeLoad empty = {.hbm_pages = 100, .max_running = 4, .step_us = 10};
  NodeLoad busy = empty;
  busy.running = 2;
  const Rates rates = {.step = {.base_us = 10}, .pull_bytes_per_us = 1000};
  const DecodePrediction light =
      PredictDecode(Node(NodeRole::kDecode, empty), rates, 0, 33, kBlock);
  EXPECT_EQ(light.handover_us, 3000);
  EXPECT_EQ(light.step_us, 10);
  EXPECT_EQ(PredictDecode(Node(NodeRole::kDecode, busy), rates, 0, 33, kBlock).step_us, 15);
  EXPECT_EQ(PredictDecode(Node(NodeRole::kDecode, empty), rates, 2, 33, kBlock).handover_us, 1000);
}

}  // namespace
}  // namespace tarn::router
