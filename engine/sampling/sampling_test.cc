#include "engine/sampling/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "engine/sampling/exp.h"
#include "engine/sampling/philox.h"

namespace tarn::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(int count, uint32_t seed, float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

SampledToken SampleCopy(std::vector<float> logits, const SamplingParams& params,
                        const std::vector<TokenId>& context = {}, int prompt_length = 0) {
  return Sample(logits, params, context, prompt_length);
}

// A context of `length` tokens: the draw is keyed by its length alone.
std::vector<TokenId> Zeros(size_t length) { return std::vector<TokenId>(length, 0); }

// The definition, word for word: sorts everything, in double. Probability 0: not kept.
std::vector<double> ReferenceProbabilities(const std::vector<float>& logits,
                                           const SamplingParams& params) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp((logits[i] - largest) / params.temperature);
  for (double& value : p) value = value >= params.min_p ? value : 0;
  std::vector<int> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  if (params.top_k > 0) {
    for (size_t rank = params.top_k; rank < order.size(); ++rank) p[order[rank]] = 0;
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double before = 0;
  for (const int id : order) {
    const double own = p[id];
    if (before >= params.top_p * total) p[id] = 0;
    before += own;
  }
  const double kept = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= kept;
  return p;
}

void ExpectMatchesReference(const std::vector<float>& logits, SamplingParams params) {
  const std::vector<double> p = ReferenceProbabilities(logits, params);
  std::vector<double> sums(p.size() + 1);
  std::partial_sum(p.begin(), p.end(), sums.begin() + 1);
  for (int position = 0; position < 200; ++position) {
    const TokenId token = SampleCopy(logits, params, Zeros(position)).token;
    ASSERT_GT(p[token], 0) << "not kept: " << token << " at " << position;
    const double uniform = PhiloxUniform(params.seed, position);
    EXPECT_GE(uniform, sums[token] - 1e-5);
    EXPECT_LE(uniform, sums[token + 1] + 1e-5);
  }
}

TEST(Philox, MatchesTheKnownAnswersOfRandom123) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryBitOfSeedAndIndexCounts) {
  const auto base = PhiloxWords(5, 7);
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_NE(PhiloxWords(5 ^ (uint64_t{1} << bit), 7), base);
    EXPECT_NE(PhiloxWords(5, 7 ^ (uint64_t{1} << bit)), base);
  }
}

TEST(Exp, IsAccurate) {
  for (double x = 0; x > -86.9; x -= 0.0137) {
    const float argument = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(argument));
    EXPECT_NEAR(ExpOfNegative(argument) / exact, 1.0, 3e-7) << x;
  }
  EXPECT_EQ(ExpOfNegative(0), 1.0f);
  EXPECT_EQ(ExpOfNegative(-kInf), 0.0f);
  EXPECT_EQ(ExpOfNegative(-1000), 0.0f);
}

TEST(Sample, GreedyTakesTheGreatestAndTheLowerIdOfEquals) {
  SamplingParams params{.temperature = 0};
  EXPECT_EQ(SampleCopy({1, 5, 3, 5}, params).token, 1);
  EXPECT_EQ(SampleCopy({-3, -2, -2}, params).token, 1);
  std::vector<float> logits = RandomLogits(1003, 1);
  logits[1002] = 100;  // past the last full vector
  EXPECT_EQ(SampleCopy(logits, params).token, 1002);
}

TEST(Sample, GreedyIgnoresSeedAndTruncation) {
  const std::vector<float> logits = RandomLogits(500, 2);
  const TokenId expected = SampleCopy(logits, {.temperature = 0}).token;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const SamplingParams params{.temperature = 0, .top_p = 0.5f, .top_k = 9, .seed = seed};
    EXPECT_EQ(SampleCopy(logits, params).token, expected);
  }
}

TEST(Sample, MatchesReference) {
  const std::vector<SamplingParams> table = {
      {},
      {.temperature = 0.3f},
      {.temperature = 5.0f},
      {.top_p = 0.9f},
      {.top_p = 0.1f},
      {.top_p = 1e-6f},
      {.top_k = 1},
      {.top_k = 50},
      {.top_k = -1},
      {.top_k = 100000},
      {.min_p = 0.05f},
      {.min_p = 1.0f},
      {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .min_p = 0.01f},
      {.temperature = 2.0f, .top_p = 0.95f, .top_k = 300},
      {.temperature = 0.02f, .top_p = 0.99f, .top_k = 700},
  };
  for (const int vocab : {1, 2, 257, 3000}) {
    for (size_t row = 0; row < table.size(); ++row) {
      SCOPED_TRACE("vocab " + std::to_string(vocab) + ", row " + std::to_string(row));
      SamplingParams params = table[row];
      params.seed = 1000 + row;
      ExpectMatchesReference(RandomLogits(vocab, 17 * vocab + row), params);
    }
  }
}

TEST(Sample, TruncationKeepsLowerIdsOfEquals) {
  const std::vector<float> equal(300, 1.5f);
  for (int position = 0; position < 300; ++position) {
    EXPECT_LT(SampleCopy(equal, {.top_k = 7}, Zeros(position)).token, 7);
    EXPECT_LT(SampleCopy(equal, {.top_p = 0.25f}, Zeros(position)).token, 75);
  }
}

// Pearson's statistic against the expected counts; categories that expect under 5 are pooled.
double ChiSquare(const std::vector<int>& counts, const std::vector<double>& p, int draws,
                 int* freedom) {
  double statistic = 0;
  double rest_expected = 0;
  double rest_count = 0;
  *freedom = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = p[i] * draws;
    if (expected < 5) {
      rest_expected += expected;
      rest_count += counts[i];
      continue;
    }
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++*freedom;
  }
  if (rest_expected > 0) {
    statistic += (rest_count - rest_expected) * (rest_count - rest_expected) / rest_expected;
  }
  return statistic;
}

TEST(Sample, DrawsFollowTheDistribution) {
  constexpr int kDraws = 10000;
  const std::vector<float> logits = RandomLogits(60, 5, 1.0f);
  const std::vector<TokenId> context = Zeros(kDraws);
  for (const uint64_t seed : {1ull, 2ull, 0xdeadbeefcafef00dull}) {
    SamplingParams params{.temperature = 0.9f, .top_p = 0.95f, .seed = seed};
    std::vector<int> counts(logits.size());
    for (int position = 0; position < kDraws; ++position) {
      std::vector<float> scratch = logits;
      ++counts[Sample(scratch, params, std::span(context).first(position), 0).token];
    }
    int freedom = 0;
    const double statistic =
        ChiSquare(counts, ReferenceProbabilities(logits, params), kDraws, &freedom);
    // Mean `freedom`, variance twice that: five standard deviations.
    EXPECT_LT(statistic, freedom + 5 * std::sqrt(2.0 * freedom)) << "seed " << seed;
    EXPECT_GT(statistic, freedom - 5 * std::sqrt(2.0 * freedom)) << "seed " << seed;
  }
}

TEST(Sample, DrawIsAFunctionOfSeedAndPosition) {
  const std::vector<float> logits = RandomLogits(5000, 6);
  const auto tokens = [&](uint64_t seed) {
    std::vector<TokenId> result;
    for (int position = 0; position < 50; ++position) {
      result.push_back(SampleCopy(logits, {.seed = seed}, Zeros(position)).token);
    }
    return result;
  };
  EXPECT_EQ(tokens(3), tokens(3));
  EXPECT_NE(tokens(3), tokens(4));
  const std::vector<TokenId> first = tokens(3);
  EXPECT_NE(std::count(first.begin(), first.end(), first[0]), 50);
}

// Reads penalised logits through greedy choice: the token wins only by its own adjusted value.
TEST(Sample, PenaltiesMatchHandComputed) {
  const std::vector<TokenId> context = {0, 1, 2, 2, 2, 1};
  constexpr int kPrompt = 2;  // prompt 0 1, output 2 2 2 1
  SamplingParams params{.temperature = 0};
  // Repetition: 6/2 = 3 and -1*2 = -2, of prompt and output alike; id 3 is untouched.
  params.repetition_penalty = 2;
  EXPECT_EQ(SampleCopy({6, 1, 1, 3.1f}, params, context, kPrompt).token, 3);
  EXPECT_EQ(SampleCopy({6, 1, 1, 2.9f}, params, context, kPrompt).token, 0);
  EXPECT_EQ(SampleCopy({-1, -1, -1, -1.9f}, params, context, kPrompt).token, 3);
  EXPECT_EQ(SampleCopy({-1, -9, -9, -2.1f}, params, context, kPrompt).token, 0);
  // Frequency 0.5: token 2 loses 1.5, token 1 loses 0.5, token 0 (prompt only) nothing.
  params = {.temperature = 0, .frequency_penalty = 0.5f};
  EXPECT_EQ(SampleCopy({3.4f, 0, 5, 0}, params, context, kPrompt).token, 2);
  EXPECT_EQ(SampleCopy({3.6f, 0, 5, 0}, params, context, kPrompt).token, 0);
  EXPECT_EQ(SampleCopy({3.6f, 4, 0, 0}, params, context, kPrompt).token, 0);
  EXPECT_EQ(SampleCopy({3.4f, 4, 0, 0}, params, context, kPrompt).token, 1);
  // Presence 1: once, however often it occurs.
  params = {.temperature = 0, .presence_penalty = 1};
  EXPECT_EQ(SampleCopy({3.9f, 0, 5, 0}, params, context, kPrompt).token, 2);
  EXPECT_EQ(SampleCopy({4.1f, 0, 5, 0}, params, context, kPrompt).token, 0);
  // All three: 8/2 - 3*0.5 - 1 = 1.5 for token 2.
  params.repetition_penalty = 2;
  params.frequency_penalty = 0.5f;
  EXPECT_EQ(SampleCopy({0, 0, 8, 1.4f}, params, context, kPrompt).token, 2);
  EXPECT_EQ(SampleCopy({0, 0, 8, 1.6f}, params, context, kPrompt).token, 3);
}

TEST(Sample, ContextOutsideTheVocabularyIsIgnored) {
  const SamplingParams params{.temperature = 0,
                              .repetition_penalty = 2,
                              .presence_penalty = 1,
                              .min_tokens = 100,
                              .forbidden_before_min_tokens = {-4, 99}};
  EXPECT_EQ(SampleCopy({1, 2}, params, {-1, 2, 1 << 30}, 1).token, 1);
}

TEST(Sample, MinTokensForbidsUntilReached) {
  const SamplingParams params{
      .temperature = 0, .min_tokens = 2, .forbidden_before_min_tokens = {1, 2}};
  EXPECT_EQ(SampleCopy({1, 9, 8, 2}, params, {0, 0, 0}, 3).token, 3);
  EXPECT_EQ(SampleCopy({1, 9, 8, 2}, params, {0, 0, 0, 3}, 3).token, 3);
  EXPECT_EQ(SampleCopy({1, 9, 8, 2}, params, {0, 0, 0, 3, 3}, 3).token, 1);
}

TEST(Sample, LogprobsAreOfTheModelsOwnDistribution) {
  const std::vector<float> logits = {1, 3, 2, 3};
  const double sum = std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0);
  const SamplingParams params{.temperature = 0, .presence_penalty = 2, .logprobs = 3};
  const SampledToken sampled = SampleCopy(logits, params, {1, 3}, 0);  // 1 and 3 fall to 1
  EXPECT_EQ(sampled.token, 2);
  EXPECT_NEAR(sampled.logprob, 2 - std::log(sum), 1e-6);
  ASSERT_EQ(sampled.top_logprobs.size(), 3u);
  const TokenId expected[] = {1, 3, 2};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sampled.top_logprobs[i].token, expected[i]);
    EXPECT_NEAR(sampled.top_logprobs[i].logprob, logits[expected[i]] - std::log(sum), 1e-6);
  }
}

TEST(Sample, LogprobsOnlyWhereAsked) {
  EXPECT_EQ(SampleCopy({1, 2}, {.temperature = 0}).logprob, 0);
  const SampledToken chosen = SampleCopy({1, 2}, {.temperature = 0, .logprobs = 0});
  EXPECT_LT(chosen.logprob, 0);
  EXPECT_TRUE(chosen.top_logprobs.empty());
  EXPECT_EQ(SampleCopy({1, 2}, {.logprobs = 20}).top_logprobs.size(), 2u);
}

TEST(Sample, StrangeLogitsHaveADefinedAnswer) {
  for (const float temperature : {0.0f, 1.0f}) {
    const SamplingParams params{
        .temperature = temperature, .top_p = 0.9f, .top_k = 3, .logprobs = 2};
    EXPECT_EQ(SampleCopy({kNan, 1, kNan, -kInf}, params).token, 1);
    EXPECT_EQ(SampleCopy({1, 2, kInf, 3}, params).token, 2);
    EXPECT_EQ(SampleCopy({-kInf, -kInf, -kInf}, params).token, 0);
    EXPECT_EQ(SampleCopy({-kInf, -kInf, kNan, -kInf}, params).token, 2);
    for (const float value : {kNan, kInf, -kInf}) {
      const SampledToken sampled = SampleCopy({value, value, value}, params);
      EXPECT_TRUE(std::isfinite(sampled.logprob));
      for (const TokenLogprob& top : sampled.top_logprobs) EXPECT_TRUE(std::isfinite(top.logprob));
    }
  }
  EXPECT_EQ(SampleCopy({}, {}).token, 0);
}

void ExpectBad(const SamplingParams& params, const std::string& field, const std::string& limit) {
  const absl::Status status = params.Validate(10);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << field;
  EXPECT_EQ(Message(status).find(field), 0u) << Message(status);
  EXPECT_NE(Message(status).find(limit), std::string::npos) << Message(status);
}

TEST(Validate, NamesFieldAndLimits) {
  ExpectBad({.temperature = -0.1f}, "temperature", "[0, 100]");
  ExpectBad({.temperature = 101}, "temperature", "[0, 100]");
  ExpectBad({.temperature = kNan}, "temperature is nan", "[0, 100]");
  ExpectBad({.temperature = kInf}, "temperature is inf", "[0, 100]");
  ExpectBad({.top_p = 0}, "top_p", "(0, 1]");
  ExpectBad({.top_p = 1.01f}, "top_p", "(0, 1]");
  ExpectBad({.top_p = kNan}, "top_p", "(0, 1]");
  ExpectBad({.top_k = -2}, "top_k", "[-1, ");
  ExpectBad({.min_p = -0.1f}, "min_p", "[0, 1]");
  ExpectBad({.min_p = 1.1f}, "min_p", "[0, 1]");
  ExpectBad({.min_p = kNan}, "min_p", "[0, 1]");
  ExpectBad({.repetition_penalty = 0}, "repetition_penalty", "(0, 100]");
  ExpectBad({.repetition_penalty = kNan}, "repetition_penalty", "(0, 100]");
  ExpectBad({.repetition_penalty = 101}, "repetition_penalty", "(0, 100]");
  ExpectBad({.presence_penalty = -2.1f}, "presence_penalty", "[-2, 2]");
  ExpectBad({.presence_penalty = kNan}, "presence_penalty", "[-2, 2]");
  ExpectBad({.frequency_penalty = 2.1f}, "frequency_penalty", "[-2, 2]");
  ExpectBad({.frequency_penalty = kNan}, "frequency_penalty", "[-2, 2]");
  ExpectBad({.logprobs = -2}, "logprobs", "[-1, 20]");
  ExpectBad({.logprobs = 21}, "logprobs", "[-1, 20]");
  ExpectBad({.min_tokens = -1}, "min_tokens", "[0, ");
  ExpectBad({.forbidden_before_min_tokens = {3, 10}}, "forbidden_before_min_tokens is 10",
            "[0, 9]");
  ExpectBad({.forbidden_before_min_tokens = {-1}}, "forbidden_before_min_tokens", "[0, 9]");
}

TEST(Validate, AcceptsTheLimits) {
  EXPECT_TRUE(SamplingParams{}.Validate(10).ok());
  const SamplingParams low{.temperature = 0,
                           .top_k = -1,
                           .presence_penalty = -2,
                           .frequency_penalty = -2,
                           .logprobs = -1,
                           .forbidden_before_min_tokens = {0, 9}};
  EXPECT_TRUE(low.Validate(10).ok());
  const SamplingParams high{.temperature = 100,
                            .top_p = 1,
                            .top_k = 1 << 30,
                            .min_p = 1,
                            .repetition_penalty = 100,
                            .presence_penalty = 2,
                            .frequency_penalty = 2,
                            .logprobs = 20,
                            .min_tokens = 1 << 30};
  EXPECT_TRUE(high.Validate(10).ok());
}

}  // namespace
}  // namespace tarn::engine
