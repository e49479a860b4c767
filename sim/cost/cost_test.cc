// Against arithmetic by hand.

#include <gtest/gtest.h>

#include "sim/cost/calibration.h"
#include "sim/cost/fair_links.h"
#include "sim/cost/hardware.h"
#include "sim/cost/model_shape.h"
#include "sim/cost/step_cost.h"

namespace tarn::sim {
namespace {

ModelShape Model(const std::string& name) { return *FindModel(name); }

TEST(ModelShape, SizesArePublishedOnes) {
  // Billions of parameters, and KiB of KV a token, as their makers give them.
  EXPECT_NEAR(Model("Qwen3-0.6B").total_params(), 0.6e9, 0.01e9);
  EXPECT_NEAR(Model("Qwen3-8B").total_params(), 8.2e9, 0.05e9);
  EXPECT_NEAR(Model("Qwen3-32B").total_params(), 32.8e9, 0.1e9);
  EXPECT_NEAR(Model("Qwen3-30B-A3B").total_params(), 30.5e9, 0.1e9);
  EXPECT_NEAR(Model("Llama-3-8B").total_params(), 8.03e9, 0.01e9);
  EXPECT_NEAR(Model("Llama-3-70B").total_params(), 70.6e9, 0.1e9);
  EXPECT_NEAR(Model("DeepSeek-V3").total_params(), 671e9, 1e9);
  EXPECT_EQ(Model("Qwen3-0.6B").kv_bytes_per_token(), 112 * 1024);
  EXPECT_EQ(Model("Qwen3-8B").kv_bytes_per_token(), 144 * 1024);
  EXPECT_EQ(Model("Llama-3-70B").kv_bytes_per_token(), 320 * 1024);
  EXPECT_EQ(Model("DeepSeek-V3").kv_bytes_per_token(), 576 * 61 * 2);
  EXPECT_TRUE(absl::IsNotFound(FindModel("GPT-2").status()));
}

TEST(ModelShape, MixturesTouchMoreExpertsInLargerBatches) {
  const ModelShape model = Model("Qwen3-30B-A3B");
  EXPECT_NEAR(model.active_params() + 2 * model.head_params(), 3.3e9, 0.1e9);
  EXPECT_NEAR(model.touched_experts(1), 8.0 / 128, 1e-12);
  EXPECT_NEAR(model.touched_experts(2), 1 - (120.0 / 128) * (120.0 / 128), 1e-12);
  EXPECT_GT(model.touched_experts(200), 0.99);
  // 37 billion active with embedding and head.
  EXPECT_NEAR(Model("DeepSeek-V3").active_params() + 2 * Model("DeepSeek-V3").head_params(), 37.5e9,
              0.5e9);
}

// One layer, one head: everything can be counted.
ModelShape Tiny() {
  ModelShape model;
  model.name = "tiny";
  model.layers = model.dense_layers = 1;
  model.hidden = 10;
  model.heads = model.kv_heads = 1;
  model.head_dim = 10;
  model.intermediate = 20;
  model.vocab = 100;
  return model;
}

HardwareProfile Node() {
  HardwareProfile node;
  node.gpus = 1;
  node.flops_per_s = 1e6;
  node.memory_bytes_per_s = 1e6;
  node.memory_bytes = 100'000;
  node.memory_for_kv = 0.5;
  node.network_bytes_per_s = node.host_bytes_per_s = 1e6;
  return node;
}

TEST(StepCost, PrefillIsLinearAndQuadratic) {
  // 4 x 10 x 10 of attention and 3 x 10 x 20 of MLP.
  EXPECT_EQ(Tiny().always_active_params(), 1000);
  HardwareProfile node = Node();
  node.memory_bytes_per_s = 1e12;
  node.step_overhead_us = 7;
  StepWork work;
  work.AddChunk(/*before=*/50, /*tokens=*/10, /*last=*/true);
  EXPECT_EQ(work.prefill_pairs, 10 * 50 + 55);
  // 10 tokens x 2000, one sample x 2000, 555 pairs x 40: 44,200 operations.
  EXPECT_EQ(StepCost(Tiny(), node).Of(work), absl::Microseconds(44'200 + 7));
  node.model_efficiency = 0.5;
  EXPECT_EQ(StepCost(Tiny(), node).Of(work), absl::Microseconds(88'400 + 7));
}

TEST(StepCost, DecodeReadsWeightsAndKv) {
  HardwareProfile node = Node();
  node.flops_per_s = 1e12;
  StepWork work;
  work.AddDecode(/*sequences=*/2, /*context=*/300);
  // (1000 + 1000) x 2 bytes of weights, (300 + 2) x 40 bytes of KV.
  EXPECT_EQ(StepCost(Tiny(), node).Of(work), absl::Microseconds(4000 + 302 * 40));
  // 50,000 bytes, less 3,000 parameters x 2: 44,000 / 40 tokens.
  EXPECT_EQ(StepCost(Tiny(), node).kv_tokens(), 1100);
}

TEST(StepCost, TheComputeRoofHoldsForLargeBatches) {
  StepWork work;
  work.AddDecode(1000, 1000);
  // 1000 x (2000 + 2000) operations against 4000 bytes; then 1000 x 40 against 2000 x 40 bytes.
  EXPECT_EQ(StepCost(Tiny(), Node()).Of(work), absl::Microseconds(4'000'000 + 80'000));
}

TEST(StepCost, AChunkDoesNotHideTheAttentionOfOthers) {
  StepWork work;
  work.AddChunk(0, 10, false);
  work.AddDecode(2, 300);
  // (10 + 2) x 2000 and 2 x 2000 operations; then (55 + 300) x 40, more than (300 + 12) x 40 bytes.
  EXPECT_EQ(StepCost(Tiny(), Node()).Of(work), absl::Microseconds(28'000 + 355 * 40));
}

TEST(StepCost, GpusShareTheWorkAndMeetTwiceALayer) {
  HardwareProfile node = Node();
  node.memory_bytes_per_s = 1e12;
  node.gpus = 2;
  node.layer_sync_us = 5;
  node.gpu_link_bytes_per_s = 1e6;
  StepWork work;
  work.AddChunk(0, 10, false);
  // (20,000 + 55 x 40) / 2 operations; 2 reduces x (5 us + 10 tokens x 20 bytes x 2 x 1/2).
  EXPECT_EQ(StepCost(Tiny(), node).Of(work), absl::Microseconds(11'100 + 2 * (5 + 200)));
}

TEST(StepCost, SeatsAreTheMostThatKeepTheLimit) {
  HardwareProfile node = Node();
  node.flops_per_s = 1e12;
  const StepCost cost(Tiny(), node);
  // A sequence of 99 tokens reads 4,000 bytes: with n of them 4 ms + 4 n ms.
  EXPECT_EQ(cost.SeatsWithin(absl::Microseconds(24'000), 99), 5);
  EXPECT_EQ(cost.SeatsWithin(absl::Microseconds(23'999), 99), 4);
  EXPECT_EQ(cost.SeatsWithin(absl::Hours(1), 99), 11) << "the KV of no more fits";
  EXPECT_EQ(cost.SeatsWithin(absl::ZeroDuration(), 99), 1);
}

TEST(StepCost, KnownFiguresComeOut) {
  // DESIGN: weights of Qwen3-8B alone, 16 GB / 4.3 TB/s = 3.8 ms (15.1 GB without the embedding).
  StepWork one;
  one.AddDecode(1, 1);
  const StepCost cost(Model("Qwen3-8B"), *FindHardware("h200"));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.Of(one)), 3.5 + 0.5, 0.1);
  // A 64-token block in 1.3 ms at best, as a part of a long chunk.
  StepWork chunk;
  chunk.AddChunk(0, 8192, false);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.Of(chunk)) / 128, 1.8, 0.3);
}

TEST(Hardware, SurvivesJson) {
  for (const HardwareProfile& profile : KnownHardware()) {
    const auto again = ParseHardware(ToJson(profile));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, profile);
  }
  for (const char* broken :
       {"[]", "{}", R"({"gpu": 1})", R"({"flops_per_s": "fast"})",
        R"({"flops_per_s": -1, "memory_bytes_per_s": 1, "memory_bytes": 1})"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHardware(broken).status())) << broken;
  }
}

TEST(Calibrate, StepCostGivesBackWhatWasMeasured) {
  MeasuredRates measured;
  measured.prefill_us_per_token = 100;
  measured.decode_step_us = 5000;
  measured.decode_batch = 3;
  measured.decode_context = 300;
  measured.pull_bytes_per_us = 2;
  measured.hbm_kv_bytes = 40 * 1000;
  HardwareProfile base = Node();
  base.step_overhead_us = 1234;
  base.gpus = 2;
  const HardwareProfile profile = Calibrate(base, Tiny(), measured);
  const StepCost cost(Tiny(), profile);
  // 2 x 1000 operations a token, over two GPUs.
  EXPECT_DOUBLE_EQ(profile.flops_per_s * profile.model_efficiency, 2000 / 100e-6 / 2);
  StepWork step;
  step.AddDecode(3, 300);
  EXPECT_NEAR(absl::ToDoubleMicroseconds(cost.Of(step)), 5000, 1);
  EXPECT_NEAR(cost.kv_tokens(), 1000, 1e-6);
  EXPECT_EQ(profile.network_bytes_per_s, 2e6);
  EXPECT_EQ(profile.host_bytes_per_s, base.host_bytes_per_s) << "not measured";
}

class FairLinksTest : public ::testing::Test {
 protected:
  absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }
  void ExpectNextEnd(double seconds) {
    EXPECT_NEAR(absl::ToDoubleSeconds(links_.NextEnd() - absl::UnixEpoch()), seconds, 1e-6);
  }
  FairLinks links_;
};

TEST_F(FairLinksTest, OneFlowHasItsTightestLink) {
  const auto wide = links_.Add(100), narrow = links_.Add(10);
  EXPECT_EQ(links_.NextEnd(), absl::InfiniteFuture());
  const auto flow = links_.Start({wide, narrow}, 50, At(0));
  ExpectNextEnd(5);
  EXPECT_TRUE(links_.TakeEnded(At(4.9)).empty());
  EXPECT_EQ(links_.TakeEnded(links_.NextEnd()), std::vector{flow});
  EXPECT_EQ(links_.flows(), 0);
  EXPECT_EQ(links_.bytes_over(narrow), 50);
}

TEST_F(FairLinksTest, FlowsShareEvenlyAndTakeWhatOthersLeave) {
  const auto link = links_.Add(10);
  const auto first = links_.Start({link}, 100, At(0));
  ExpectNextEnd(10);
  const auto second = links_.Start({link}, 20, At(5));  // 50 bytes of the first are left
  ExpectNextEnd(9);
  EXPECT_EQ(links_.TakeEnded(links_.NextEnd()), std::vector{second});
  // 30 bytes are left, at full speed.
  ExpectNextEnd(12);
  EXPECT_EQ(links_.TakeEnded(links_.NextEnd()), std::vector{first});
}

TEST_F(FairLinksTest, SharesAreMaxMin) {
  const auto a = links_.Add(10), b = links_.Add(4);
  const auto both = links_.Start({a, b}, 1e6, At(0));
  const auto on_b = links_.Start({b}, 1e6, At(0));
  const auto on_a = links_.Start({a}, 1e6, At(0));
  EXPECT_DOUBLE_EQ(links_.rate(both), 2);
  EXPECT_DOUBLE_EQ(links_.rate(on_b), 2);
  EXPECT_DOUBLE_EQ(links_.rate(on_a), 8) << "what the narrow link keeps the first from using";
  EXPECT_DOUBLE_EQ(links_.ShareOf(a), 10.0 / 3);
}

}  // namespace
}  // namespace tarn::sim
