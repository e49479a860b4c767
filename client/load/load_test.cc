#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "client/load/summary.h"
#include "client/load/workload.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

TEST(Summary, PercentilesAreNumpys) {
  // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 99]) = 3, 7.6, 9.76.
  const Distribution d = DistributionOf({10, 1, 3, 2, 4});
  EXPECT_DOUBLE_EQ(d.mean, 4);
  EXPECT_DOUBLE_EQ(d.median, 3);
  EXPECT_NEAR(d.p90, 7.6, 1e-9);
  EXPECT_NEAR(d.p99, 9.76, 1e-9);
  EXPECT_EQ(DistributionOf({}).mean, 0);
}

RequestRecord Record(double ttft, double e2e, uint32_t tokens) {
  return {.ok = true,
          .prompt_tokens = 10,
          .cached_tokens = 4,
          .output_tokens = tokens,
          .ttft_ms = ttft,
          .e2e_ms = e2e};
}

TEST(Summary, CountsGoodputByEveryGoal) {
  const std::vector<RequestRecord> records = {
      Record(10, 110, 11), Record(50, 150, 11), Record(10, 510, 11), {.error = "full"}};
  const Summary s =
      Summarize(records, absl::Seconds(2), {.ttft_ms = 20, .tpot_ms = 20, .e2e_ms = 0});
  EXPECT_EQ(s.completed, 3);
  EXPECT_EQ(s.failed, 1);
  EXPECT_EQ(s.good, 1);
  EXPECT_DOUBLE_EQ(s.goodput(), 0.5);
  EXPECT_EQ(s.input_tokens, 30u);
  EXPECT_EQ(s.cached_tokens, 12u);
  EXPECT_DOUBLE_EQ(s.output_throughput(), 16.5);
  EXPECT_DOUBLE_EQ(s.tpot_ms.median, 10);
  EXPECT_EQ(s.errors, std::vector<std::string>{"full"});
}

TEST(SyntheticLoad, SharesThePrefixAndKeepsTheRate) {
  const auto load = MakeSyntheticLoad({.requests = 2000,
                                       .input_tokens = 20,
                                       .output_tokens = 3,
                                       .shared_tokens = 12,
                                       .request_rate = 100,
                                       .vocab_size = 1000,
                                       .seed = 1});
  ASSERT_EQ(load.size(), 2000u);
  const auto& a = load[0].request.tokens().ids();
  const auto& b = load[1].request.tokens().ids();
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 12, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 12, a.end(), b.begin() + 12));
  EXPECT_EQ(load[0].request.options().sampling().max_tokens(), 3u);
  // 2,000 exponential gaps of 10 ms: the sum is within 10% of 20 s but for one case in 10^5.
  EXPECT_NEAR(absl::ToDoubleSeconds(load.back().at), 20, 2);
}

constexpr char kTrace[] =
    "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 64, \"hash_ids\": [0, 1, 2]}\n"
    "{\"timestamp\": 3000, \"input_length\": 1536, \"output_length\": 0, \"hash_ids\": [0, 1, "
    "70000]}\n"
    "\n"
    "{\"timestamp\": 6000, \"input_length\": 512, \"output_length\": 9, \"hash_ids\": [7]}\n";

TEST(Trace, PromptsShareExactlyWhatTheIdsShare) {
  const auto trace = sim::ParseTrace(kTrace, 0);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 3u);
  const auto load = MakeReplayLoad(*trace, {.block_tokens = 32, .speed = 10, .vocab_size = 300});
  ASSERT_EQ(load.size(), 3u);
  const auto& a = load[0].request.tokens().ids();
  const auto& b = load[1].request.tokens().ids();
  const auto& c = load[2].request.tokens().ids();
  EXPECT_EQ(a.size(), 69);  // ceil(1100 / 16)
  EXPECT_EQ(b.size(), 96);
  EXPECT_EQ(c.size(), 32);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 64, b.begin()));
  EXPECT_NE(std::make_pair(a[64], a[65]), std::make_pair(b[64], b[65]));
  EXPECT_NE(a[0], c[0]);
  EXPECT_EQ(load[1].at, absl::Milliseconds(300));
  EXPECT_EQ(load[0].request.options().sampling().max_tokens(), 4u);
  EXPECT_EQ(load[1].request.options().sampling().max_tokens(), 1u);
}

TEST(Trace, LongRequestsAreCutToTheContext) {
  const auto trace = sim::ParseTrace(kTrace, 1);
  const auto load = MakeReplayLoad(
      *trace,
      {.block_tokens = 512, .max_output_tokens = 10, .max_context = 100, .vocab_size = 300});
  EXPECT_EQ(load[0].request.tokens().ids_size(), 90);
  EXPECT_EQ(load[0].request.options().sampling().max_tokens(), 10u);
}

TEST(Trace, BadLinesAreNamed) {
  const std::string good =
      "{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[1]}\n";
  EXPECT_EQ(Message(sim::ParseTrace(good + "{\"timestamp\":0}\n", 0).status()).rfind("line 2: ", 0),
            0u);
  EXPECT_EQ(Message(sim::ParseTrace("nonsense", 0).status()).rfind("line 1: ", 0), 0u);
  EXPECT_FALSE(sim::ParseTrace(
                   "{\"timestamp\":0,\"input_length\":0,\"output_length\":1,\"hash_ids\":[1]}", 0)
                   .ok());
}

}  // namespace
}  // namespace tarn::client
