#include "engine/cpu/cpu_executor.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "common/base/thread_sanitizer.h"
#include "engine/cpu/reference_model.h"
#include "engine/cpu/test_model.h"
#include "gtest/gtest.h"

namespace tarn::engine {
namespace {

std::vector<TokenId> RandomTokens(int count, int vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (TokenId& token : tokens)
    token = static_cast<TokenId>(random() % static_cast<uint32_t>(vocab));
  return tokens;
}

std::vector<PageIndex> Pages(int first, int count) {
  std::vector<PageIndex> pages(static_cast<size_t>(count));
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

std::vector<IsaChoice> Choices() {
  std::vector<IsaChoice> choices;
  for (auto [isa, choice] : {std::pair(Isa::kAvx2, IsaChoice::kAvx2),
                             {Isa::kAvx512, IsaChoice::kAvx512},
                             {Isa::kAvx512Bf16, IsaChoice::kAvx512Bf16}}) {
    if (KernelsFor(isa).ok()) choices.push_back(choice);
  }
  return choices;
}

// Logits after the last token of a prompt fed `chunk` tokens at a time.
std::vector<float> LastLogits(TestExecutor& executor, const std::vector<TokenId>& tokens,
                              const std::vector<PageIndex>& pages, int chunk) {
  std::vector<float> last;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(chunk)) {
    const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - begin);
    const StepSequence sequence = {.tokens = {tokens.data() + begin, count},
                                   .position = static_cast<int>(begin),
                                   .pages = pages};
    auto logits = executor->Logits({&sequence, 1});
    CHECK(logits.ok()) << logits.status();
    last = (*logits)[0];
  }
  return last;
}

struct AccuracyCase {
  std::string name;
  ModelConfig config;
  DataType type;
  double limit;  // of max |error| / max |logit|
  int64_t max_shard_bytes = 0;
};

std::vector<AccuracyCase> AccuracyCases() {
  std::vector<AccuracyCase> cases;
  ModelConfig yarn = TinyQwen();
  yarn.rope_scaling = {.kind = RopeScaling::Kind::kYarn, .factor = 4, .original_max_position = 128};
  yarn.rope_scaling.attention_factor = 1.1386294361119891;
  yarn.max_position = 512;
  ModelConfig linear = TinyQwen();
  linear.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 2};
  ModelConfig bias = TinyQwen();
  bias.attention_bias = true;
  ModelConfig wide_group = TinyLlama();
  wide_group.heads = 8;
  wide_group.kv_heads = 1;
  cases.push_back({"QwenF32", TinyQwen(), DataType::kF32, 1e-5});
  cases.push_back({"QwenBf16", TinyQwen(), DataType::kBf16, 2e-2});
  cases.push_back({"QwenF16", TinyQwen(), DataType::kF16, 2e-2});
  cases.push_back({"QwenYarn", yarn, DataType::kF32, 1e-5});
  cases.push_back({"QwenLinear", linear, DataType::kF32, 1e-5});
  cases.push_back({"QwenBias", bias, DataType::kF32, 1e-5});
  cases.push_back({"LlamaF32", TinyLlama(), DataType::kF32, 1e-5, 100'000});
  cases.push_back({"LlamaBf16", TinyLlama(), DataType::kBf16, 2e-2, 50'000});
  cases.push_back({"LlamaF16", TinyLlama(), DataType::kF16, 2e-2});
  cases.push_back({"LlamaWideGroup", wide_group, DataType::kF32, 1e-5});
  if (kThreadSanitizer) cases.resize(2);
  return cases;
}

class AccuracyTest : public testing::TestWithParam<AccuracyCase> {};

TEST_P(AccuracyTest, LogitsAgreeWithDoublePrecision) {
  const AccuracyCase& param = GetParam();
  SyntheticSpec spec;
  spec.config = param.config;
  spec.type = param.type;
  spec.max_shard_bytes = param.max_shard_bytes;
  const std::string directory = WriteTestModel(spec);
  auto reference = ReferenceModel::Load(directory);
  ASSERT_TRUE(reference.ok()) << reference.status();
  const std::vector<TokenId> tokens = RandomTokens(150, param.config.vocab_size, 7);
  const std::vector<std::vector<double>> expected = reference->Logits(tokens);
  for (IsaChoice isa : Choices()) {
    TestExecutor executor(directory, {.isa = isa});
    for (size_t length : {1, 2, 31, 33, 64, 150}) {
      const std::vector<TokenId> prompt(tokens.begin(), tokens.begin() + static_cast<int>(length));
      const std::vector<float> logits = LastLogits(executor, prompt, Pages(3, 5), 512);
      const double error = RelativeError(logits, expected[length - 1]);
      EXPECT_LT(error, param.limit) << executor->model().device << ", " << length << " tokens";
      RecordProperty(absl::StrCat("error_", static_cast<int>(isa), "_", length),
                     absl::StrCat(error));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AccuracyTest, testing::ValuesIn(AccuracyCases()),
                         [](const auto& info) { return info.param.name; });

struct InvarianceCase {
  std::string name;
  ModelConfig config;
  DataType type;
  IsaChoice isa;
};

std::vector<InvarianceCase> InvarianceCases() {
  std::vector<InvarianceCase> cases;
  const char* names[] = {"Auto", "Avx2", "Avx512", "Avx512Bf16"};
  for (IsaChoice isa : Choices()) {
    const std::string suffix = names[static_cast<int>(isa)];
    cases.push_back({"QwenBf16" + suffix, TinyQwen(), DataType::kBf16, isa});
    if (kThreadSanitizer) continue;
    cases.push_back({"LlamaF32" + suffix, TinyLlama(), DataType::kF32, isa});
    cases.push_back({"LlamaBf16" + suffix, TinyLlama(), DataType::kBf16, isa});
  }
  return cases;
}

class InvarianceTest : public testing::TestWithParam<InvarianceCase> {
 protected:
  InvarianceTest() {
    SyntheticSpec spec;
    spec.config = GetParam().config;
    spec.type = GetParam().type;
    directory_ = WriteTestModel(spec);
    tokens_ = RandomTokens(300, spec.config.vocab_size, 11);
  }

  CpuOptions Options(int threads, int block_tokens = 32) const {
    return {.block_tokens = block_tokens, .threads = threads, .isa = GetParam().isa};
  }

  std::string directory_;
  std::vector<TokenId> tokens_;
};

TEST_P(InvarianceTest, ChunksDoNotMatter) {
  TestExecutor executor(directory_, Options(2));
  const std::vector<float> whole = LastLogits(executor, tokens_, Pages(0, 10), 300);
  for (int chunk : {1, 7, 64, 299}) {
    EXPECT_EQ(LastLogits(executor, tokens_, Pages(20, 10), chunk), whole) << chunk;
  }
}

TEST_P(InvarianceTest, PagesAndThreadsDoNotMatter) {
  TestExecutor executor(directory_, Options(1));
  const std::vector<float> expected = LastLogits(executor, tokens_, Pages(0, 10), 100);
  std::vector<PageIndex> pages = Pages(10, 40);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(3));
  pages.resize(10);
  for (int threads : {1, 2, 5}) {
    TestExecutor other(directory_, Options(threads));
    EXPECT_EQ(LastLogits(other, tokens_, pages, 64), expected) << threads;
  }
}

TEST_P(InvarianceTest, BlockSizesAboveTheKeyGridDoNotMatter) {
  TestExecutor executor(directory_, Options(2, 32));
  TestExecutor large(directory_, Options(2, 128));
  EXPECT_EQ(LastLogits(executor, tokens_, Pages(0, 10), 300),
            LastLogits(large, tokens_, Pages(0, 3), 300));
}

// 20 sequences of different lengths, in one step, at different stages: each gets what it gets
// alone.
TEST_P(InvarianceTest, TheBatchDoesNotMatter) {
  TestExecutor executor(directory_, Options(2));
  constexpr int kSequences = 20;
  std::vector<std::vector<PageIndex>> pages;
  std::vector<StepSequence> batch;
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < kSequences; ++i) {
    const size_t length = 1 + static_cast<size_t>(i * 4);
    const size_t cached = i % 3 == 0 ? 0 : i % 3 == 1 ? length / 2 : length - 1;
    alone.push_back(
        LastLogits(executor, {tokens_.begin() + i, tokens_.begin() + i + static_cast<int>(length)},
                   Pages(0, 3), 300));
    pages.push_back(Pages(4 + i * 3, 3));
    if (cached > 0) {
      LastLogits(executor, {tokens_.begin() + i, tokens_.begin() + i + static_cast<int>(cached)},
                 pages.back(), 300);
    }
    batch.push_back({.tokens = {tokens_.data() + i + cached, length - cached},
                     .position = static_cast<int>(cached)});
  }
  for (int i = 0; i < kSequences; ++i)
    batch[static_cast<size_t>(i)].pages = pages[static_cast<size_t>(i)];
  const auto together = executor->Logits(batch);
  ASSERT_TRUE(together.ok()) << together.status();
  for (size_t i = 0; i < batch.size(); ++i) EXPECT_EQ((*together)[i], alone[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Isas, InvarianceTest, testing::ValuesIn(InvarianceCases()),
                         [](const auto& info) { return info.param.name; });

TEST(CpuExecutorTest, Avx2AndAvx512GiveTheSameBits) {
  if (!KernelsFor(Isa::kAvx512).ok()) GTEST_SKIP() << "no AVX-512 here";
  for (DataType type : {DataType::kF32, DataType::kBf16}) {
    SyntheticSpec spec;
    spec.config = TinyQwen();
    spec.type = type;
    const std::string directory = WriteTestModel(spec);
    TestExecutor narrow(directory, {.isa = IsaChoice::kAvx2});
    TestExecutor wide(directory, {.isa = IsaChoice::kAvx512});
    EXPECT_EQ(narrow->model().fingerprint, wide->model().fingerprint);
    const std::vector<TokenId> tokens = RandomTokens(100, spec.config.vocab_size, 5);
    EXPECT_EQ(LastLogits(narrow, tokens, Pages(0, 4), 100),
              LastLogits(wide, tokens, Pages(0, 4), 100));
  }
}

TEST(CpuExecutorTest, StepSamplesWhereAsked) {
  SyntheticSpec spec;
  spec.config = TinyQwen();
  TestExecutor executor(WriteTestModel(spec), {});
  const std::vector<TokenId> tokens = RandomTokens(40, spec.config.vocab_size, 5);
  const std::vector<float> logits = LastLogits(executor, tokens, Pages(0, 2), 40);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  SamplingParams greedy;
  greedy.temperature = 0;
  const std::vector<PageIndex> pages = Pages(4, 4);
  const std::vector<StepSequence> batch = {
      {.tokens = tokens, .pages = {pages.data(), 2}},
      {.tokens = tokens,
       .pages = {pages.data() + 2, 2},
       .sample = SampleRequest{.params = &greedy, .context = tokens, .prompt_length = 40}}};
  const auto outputs = executor->Step(batch);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_FALSE((*outputs)[0].sampled.has_value());
  ASSERT_TRUE((*outputs)[1].sampled.has_value());
  EXPECT_EQ((*outputs)[1].sampled->token, best);
}

TEST(CpuExecutorTest, EmptyBatchIsNothing) {
  SyntheticSpec spec;
  spec.config = TinyQwen();
  TestExecutor executor(WriteTestModel(spec), {});
  const auto outputs = executor->Step({});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_TRUE(outputs->empty());
}

TEST(CpuExecutorTest, RefusesBadSequences) {
  SyntheticSpec spec;
  spec.config = TinyQwen();
  TestExecutor executor(WriteTestModel(spec), {}, 8);
  const std::vector<TokenId> tokens = {1, 2, 3};
  const std::vector<TokenId> bad_tokens = {1, 301};
  const std::vector<TokenId> negative_tokens = {-1};
  const std::vector<PageIndex> pages = {0, 1};
  const std::vector<PageIndex> bad_pages = {8};
  const std::vector<PageIndex> many(20, 0);
  const SamplingParams params;
  const StepSequence good = {.tokens = tokens, .pages = pages};
  struct Case {
    StepSequence sequence;
    std::string message;
  };
  const Case cases[] = {
      {{.pages = pages}, "no new tokens"},
      {{.tokens = bad_tokens, .pages = pages}, "token 301 is not in 0 to 300"},
      {{.tokens = negative_tokens, .pages = pages}, "token -1"},
      {{.tokens = tokens, .position = -1, .pages = pages}, "positions -1"},
      {{.tokens = tokens, .position = 510, .pages = many}, "the context is 0 to 511"},
      {{.tokens = tokens, .position = 62, .pages = pages}, "pages cover 64 tokens of 65"},
      {{.tokens = tokens, .pages = bad_pages}, "page 8 is not in 0 to 7"},
      {{.tokens = tokens, .pages = pages, .sample = SampleRequest{.context = tokens}}, "params"},
      {{.tokens = tokens, .pages = pages, .sample = SampleRequest{.params = &params}}, "context"},
      {{.tokens = tokens,
        .pages = pages,
        .sample = SampleRequest{.params = &params, .context = tokens, .prompt_length = 4}},
       "prompt_length is 4"}};
  for (const Case& c : cases) {
    const std::vector<StepSequence> batch = {good, c.sequence};
    const absl::Status status = executor->Step(batch).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_NE(Message(status).find("sequence 1"), std::string::npos) << status;
    EXPECT_NE(Message(status).find(c.message), std::string::npos) << status;
  }
}

TEST(CpuModelTest, FingerprintCoversWeightsConfigAndNumerics) {
  SyntheticSpec spec;
  spec.config = TinyQwen();
  const auto fingerprint = [](const SyntheticSpec& s, CpuOptions options) {
    auto model = CpuModel::Load(WriteTestModel(s), options);
    CHECK(model.ok()) << model.status();
    return (*model)->info().fingerprint;
  };
  const uint64_t base = fingerprint(spec, {});
  EXPECT_EQ(fingerprint(spec, {.name = "other", .threads = 1}), base);
  SyntheticSpec sharded = spec;
  sharded.max_shard_bytes = 20'000;
  EXPECT_EQ(fingerprint(sharded, {}), base);
  SyntheticSpec other = spec;
  other.seed = 2;
  EXPECT_NE(fingerprint(other, {}), base);
  other = spec;
  other.config.rope_theta = 20000;
  EXPECT_NE(fingerprint(other, {}), base);
  if (KernelsFor(Isa::kAvx512Bf16).ok()) {
    EXPECT_NE(fingerprint(spec, {.isa = IsaChoice::kAvx512}),
              fingerprint(spec, {.isa = IsaChoice::kAvx512Bf16}));
  }
}

TEST(CpuModelTest, DescribesItself) {
  SyntheticSpec spec;
  spec.config = TinyQwen();
  const std::string directory = WriteTestModel(spec);
  auto model = CpuModel::Load(directory + "/", {.block_tokens = 64, .threads = 2});
  ASSERT_TRUE(model.ok()) << model.status();
  const ModelInfo& info = (*model)->info();
  EXPECT_EQ(info.name, directory.substr(directory.rfind('/') + 1));
  EXPECT_EQ(info.vocab_size, 301);
  EXPECT_EQ(info.max_context, 512);
  EXPECT_NE(info.device.find("2 threads"), std::string::npos);
  EXPECT_EQ(info.parameter_bytes, ParameterCount(spec.config) * 2);
  const BlockLayout expected = {
      .layers = 3, .kv_heads = 2, .head_dim = 24, .block_tokens = 64, .type = KvType::kBf16};
  EXPECT_EQ((*model)->layout(), expected);
  const absl::Status bad = CpuModel::Load(directory, {.block_tokens = 48}).status();
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument) << bad;
}

TEST(CpuModelTest, IsaChoices) {
  EXPECT_EQ(*ParseIsaChoice("avx512_bf16"), IsaChoice::kAvx512Bf16);
  EXPECT_EQ(ParseIsaChoice("sse").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tarn::engine
