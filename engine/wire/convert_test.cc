#include "engine/wire/convert.h"

#include <gtest/gtest.h>

#include <limits>

namespace tarn::engine {
namespace {

TEST(Convert, UnsetSamplingFieldsTakeTheEnginesDefaults) {
  const auto params = FromProto(v1::SamplingParams(), {7}, 100);
  ASSERT_TRUE(params.ok()) << params.status();
  const SamplingParams defaults;
  EXPECT_EQ(params->temperature, defaults.temperature);
  EXPECT_EQ(params->top_p, defaults.top_p);
  EXPECT_EQ(params->top_k, defaults.top_k);
  EXPECT_EQ(params->repetition_penalty, defaults.repetition_penalty);
  EXPECT_EQ(params->logprobs, -1);
  EXPECT_EQ(params->forbidden_before_min_tokens, std::vector<TokenId>{7});
}

TEST(Convert, SamplingSurvivesTheWire) {
  SamplingParams params;
  params.temperature = 0.0f;
  params.top_p = 0.5f;
  params.top_k = 40;
  params.min_p = 0.1f;
  params.repetition_penalty = 1.2f;
  params.presence_penalty = -0.5f;
  params.frequency_penalty = 0.25f;
  params.seed = ~0ull;
  params.logprobs = 0;
  params.min_tokens = 3;
  params.forbidden_before_min_tokens = {1, 2};
  const auto back = FromProto(ToProto(params), {1, 2}, 100);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->temperature, params.temperature);
  EXPECT_EQ(back->top_p, params.top_p);
  EXPECT_EQ(back->top_k, params.top_k);
  EXPECT_EQ(back->min_p, params.min_p);
  EXPECT_EQ(back->repetition_penalty, params.repetition_penalty);
  EXPECT_EQ(back->presence_penalty, params.presence_penalty);
  EXPECT_EQ(back->frequency_penalty, params.frequency_penalty);
  EXPECT_EQ(back->seed, params.seed);
  EXPECT_EQ(back->logprobs, params.logprobs);
  EXPECT_EQ(back->min_tokens, params.min_tokens);
  EXPECT_EQ(back->forbidden_before_min_tokens, params.forbidden_before_min_tokens);
}

TEST(Convert, BadSamplingNamesTheField) {
  v1::SamplingParams proto;
  proto.set_top_p(std::numeric_limits<float>::quiet_NaN());
  const auto params = FromProto(proto, {}, 100);
  EXPECT_EQ(params.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(params.status().ToString().find("top_p"), std::string::npos) << params.status();
  proto.clear_top_p();
  proto.set_min_tokens(4'000'000'000u);
  EXPECT_FALSE(FromProto(proto, {}, 100).ok());
}

TEST(Convert, SampledTokenSurvivesTheWire) {
  const SampledToken token{.token = 5, .logprob = -1.5f, .top_logprobs = {{5, -1.5f}, {9, -2}}};
  EXPECT_EQ(FromProto(ToProto(token)), token);
}

TEST(Convert, ErrorSurvivesTheWire) {
  const absl::Status full = absl::ResourceExhaustedError("queue: 4 of 4");
  const v1::Error error = ToProto(full, absl::Milliseconds(20));
  EXPECT_EQ(FromProto(error), full);
  EXPECT_EQ(RetryAfterOf(error), absl::Milliseconds(20));
}

TEST(Convert, AnErrorIsNeverOk) {
  v1::Error error;
  EXPECT_EQ(FromProto(error).code(), absl::StatusCode::kUnknown);
  error.set_code(999);
  EXPECT_EQ(FromProto(error).code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace tarn::engine
