#include "engine/fake/fake_executor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace tarn::engine {
namespace {

constexpr int kPages = 64;
constexpr int kBlock = 16;

BlockLayout SmallLayout() {
  return {.layers = 2, .kv_heads = 2, .head_dim = 5, .block_tokens = kBlock, .type = KvType::kBf16};
}

FakeOptions SmallOptions() {
  return {.layout = SmallLayout(), .vocab_size = 1000, .max_context = 400};
}

// An executor with its own memory, and a prompt's worth of calls to it.
class Fixture {
 public:
  explicit Fixture(FakeOptions options = SmallOptions())
      : memory_(options.layout.page_bytes() * kPages, std::byte{0xab}) {
    auto made = FakeExecutor::Create(std::move(options), {memory_.data(), kPages});
    EXPECT_TRUE(made.ok()) << made.status();
    executor_ = std::move(made).value();
  }

  FakeExecutor& executor() { return *executor_; }
  std::vector<std::byte>& memory() { return memory_; }

  // Runs context[position...] and samples.
  TokenId Next(const std::vector<TokenId>& context, int position,
               const std::vector<PageIndex>& pages,
               const SamplingParams& params = {.temperature = 0}) {
    const StepSequence sequence{.tokens = std::span(context).subspan(position),
                                .position = position,
                                .pages = pages,
                                .sample = SampleRequest{&params, context, 1}};
    auto outputs = executor_->Step({&sequence, 1});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs->front().sampled->token;
  }

  // Prefill in chunks, then `count` tokens one by one.
  std::vector<TokenId> Generate(std::vector<TokenId> context, int chunk, int count,
                                const std::vector<PageIndex>& pages) {
    const int prompt = static_cast<int>(context.size());
    int position = 0;
    for (; position + chunk < prompt; position += chunk) {
      const StepSequence sequence{.tokens = std::span(context).subspan(position, chunk),
                                  .position = position,
                                  .pages = pages};
      EXPECT_TRUE(executor_->Step({&sequence, 1}).ok());
    }
    for (int i = 0; i < count; ++i) {
      const TokenId token = Next(context, position, pages);
      position = static_cast<int>(context.size());
      context.push_back(token);
    }
    return {context.begin() + prompt, context.end()};
  }

 private:
  std::vector<std::byte> memory_;
  std::unique_ptr<FakeExecutor> executor_;
};

std::vector<TokenId> Prompt(int length, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(length);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 1000);
  return tokens;
}

std::vector<PageIndex> PagesFrom(int first, int count) {
  std::vector<PageIndex> pages(count);
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

TEST(FakeExecutor, ChunksDoNotMatter) {
  const std::vector<TokenId> prompt = Prompt(75);
  Fixture whole;
  const std::vector<TokenId> expected = whole.Generate(prompt, 1000, 12, PagesFrom(0, 6));
  EXPECT_GT(std::set<TokenId>(expected.begin(), expected.end()).size(), 6u);
  for (const int chunk : {1, 7, 16, 64}) {
    Fixture fixture;
    EXPECT_EQ(fixture.Generate(prompt, chunk, 12, PagesFrom(0, 6)), expected) << chunk;
  }
}

TEST(FakeExecutor, PagesAndLeftoversDoNotMatter) {
  Fixture fixture;
  const std::vector<TokenId> expected = fixture.Generate(Prompt(75), 32, 12, PagesFrom(0, 6));
  const std::vector<PageIndex> scattered = {63, 4, 17, 0, 5, 40};
  EXPECT_EQ(fixture.Generate(Prompt(75), 32, 12, scattered), expected);
}

TEST(FakeExecutor, BatchDoesNotMatter) {
  Fixture alone;
  Fixture together;
  const SamplingParams params{.temperature = 0};
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::vector<PageIndex>> pages;
  std::vector<StepSequence> batch;
  for (int i = 0; i < 8; ++i) {
    prompts.push_back(Prompt(20 + 5 * i, i));
    pages.push_back(PagesFrom(8 * i, 8));
  }
  for (int i = 0; i < 8; ++i) {
    batch.push_back(
        {.tokens = prompts[i], .pages = pages[i], .sample = SampleRequest{&params, prompts[i], 1}});
  }
  batch[3].sample.reset();
  const auto outputs = together.executor().Step(batch);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), 8u);
  for (int i = 0; i < 8; ++i) {
    ASSERT_EQ((*outputs)[i].sampled.has_value(), i != 3);
    if (i == 3) continue;
    EXPECT_EQ((*outputs)[i].sampled->token, alone.Next(prompts[i], 0, pages[i])) << i;
  }
}

TEST(FakeExecutor, BlocksMoveToAnotherExecutor) {
  const std::vector<TokenId> prompt = Prompt(70);
  Fixture prefill;
  Fixture decode;
  const TokenId first = prefill.Next(prompt, 0, PagesFrom(0, 5));
  const size_t page_bytes = SmallLayout().page_bytes();
  for (int i = 0; i < 5; ++i) {
    std::memcpy(decode.memory().data() + (50 - i) * page_bytes,
                prefill.memory().data() + i * page_bytes, page_bytes);
  }
  std::vector<TokenId> context = prompt;
  context.push_back(first);
  EXPECT_EQ(decode.Next(context, 70, {50, 49, 48, 47, 46}),
            prefill.Next(context, 70, PagesFrom(0, 5)));
}

// Every byte of every slot in use, one flip at a time.
TEST(FakeExecutor, AnyFlippedByteChangesTheToken) {
  Fixture fixture;
  std::vector<TokenId> context = Prompt(2 * kBlock);
  fixture.Next(context, 0, PagesFrom(0, 3));
  context.push_back(7);
  const TokenId right = fixture.Next(context, 2 * kBlock, PagesFrom(0, 3));
  const BlockLayout layout = SmallLayout();
  int unseen = 0;
  int flips = 0;
  for (int page = 0; page < 2; ++page) {
    for (size_t at = 0; at < layout.payload_bytes(); ++at) {
      std::byte& byte = fixture.memory()[page * layout.page_bytes() + layout.payload_offset() + at];
      byte ^= std::byte{0x10};
      unseen += fixture.Next(context, 2 * kBlock, PagesFrom(0, 3)) == right;
      byte ^= std::byte{0x10};
      ++flips;
    }
  }
  // Two different digests share one of 1,000 tokens by chance; a blind byte would be blind always.
  EXPECT_LT(unseen, flips / 250);
  EXPECT_EQ(fixture.Next(context, 2 * kBlock, PagesFrom(0, 3)), right);
}

TEST(FakeExecutor, MissingStaleAndSwappedBlocksChangeTheTokens) {
  Fixture fixture;
  const std::vector<TokenId> context = Prompt(3 * kBlock + 1);
  const std::vector<TokenId> prefix(context.begin(), context.end() - 1);
  fixture.Next(prefix, 0, {0, 1, 2, 3});
  fixture.Next(Prompt(3 * kBlock, 9), 0, {10, 11, 12, 13});
  const TokenId right = fixture.Next(context, 3 * kBlock, {0, 1, 2, 3});
  EXPECT_EQ(fixture.Next(context, 3 * kBlock, {0, 1, 2, 4}), right);
  EXPECT_NE(fixture.Next(context, 3 * kBlock, {0, 30, 2, 3}), right);  // never written
  EXPECT_NE(fixture.Next(context, 3 * kBlock, {0, 11, 2, 3}), right);  // another prompt's
  EXPECT_NE(fixture.Next(context, 3 * kBlock, {1, 0, 2, 3}), right);
}

TEST(FakeExecutor, TouchesOnlySlotsOfNewTokens) {
  Fixture fixture;
  const std::vector<std::byte> before = fixture.memory();
  fixture.Next(Prompt(kBlock + 3), 0, {2, 5});
  const BlockLayout layout = SmallLayout();
  const size_t row = layout.tile_bytes() / kBlock;
  for (size_t at = 0; at < before.size(); ++at) {
    if (before[at] == fixture.memory()[at]) continue;
    const size_t page = at / layout.page_bytes();
    const size_t in_page = at % layout.page_bytes();
    ASSERT_GE(in_page, layout.payload_offset());
    ASSERT_LT(in_page, layout.payload_offset() + layout.payload_bytes());
    const size_t slot = (in_page - layout.payload_offset()) % layout.tile_bytes() / row;
    ASSERT_TRUE(page == 2 || (page == 5 && slot < 3)) << page << " " << slot;
  }
}

TEST(FakeExecutor, SeedMattersUnlessGreedy) {
  Fixture fixture;
  const std::vector<TokenId> prompt = Prompt(10);
  const auto next = [&](float temperature, uint64_t seed) {
    return fixture.Next(prompt, 0, {0}, {.temperature = temperature, .seed = seed});
  };
  EXPECT_EQ(next(0, 1), next(0, 2));
  EXPECT_NE(next(1, 1), next(1, 2));
  EXPECT_EQ(next(1, 1), next(1, 1));
}

TEST(FakeExecutor, ModelSeedIsAnotherModel) {
  FakeOptions options = SmallOptions();
  options.model_seed = 1;
  Fixture other(options);
  Fixture fixture;
  EXPECT_NE(other.executor().model().fingerprint, fixture.executor().model().fingerprint);
  EXPECT_NE(other.Generate(Prompt(10), 100, 5, {0}), fixture.Generate(Prompt(10), 100, 5, {0}));
}

TEST(FakeExecutor, EosComesAsOftenAsAsked) {
  for (const double probability : {0.0, 0.2, 1.0}) {
    FakeOptions options = SmallOptions();
    options.vocab_size = 1000;
    options.eos_token = 3;
    options.eos_probability = probability;
    Fixture fixture(options);
    int ends = 0;
    for (uint64_t seed = 0; seed < 500; ++seed) {
      ends += fixture.Next({1, 2}, 0, {0}, {.seed = seed}) == 3;
    }
    EXPECT_NEAR(ends, 500 * probability, 45) << probability;
    EXPECT_TRUE(probability == 0.2 || ends == 500 * probability) << ends;
  }
}

TEST(FakeExecutor, MinTokensHoldsEosBack) {
  FakeOptions options = SmallOptions();
  options.eos_token = 3;
  options.eos_probability = 1;
  Fixture fixture(options);
  const SamplingParams params{.min_tokens = 2, .forbidden_before_min_tokens = {3}};
  EXPECT_NE(fixture.Next({1, 2}, 0, {0}, params), 3);     // one output token
  EXPECT_EQ(fixture.Next({1, 2, 4}, 0, {0}, params), 3);  // two
}

TEST(FakeExecutor, PaceIsASumOverTheBatch) {
  const FakePace pace{absl::Milliseconds(10), absl::Microseconds(100), absl::Milliseconds(1),
                      absl::Microseconds(1)};
  const std::vector<TokenId> tokens = Prompt(50);
  const std::vector<StepSequence> batch = {
      {.tokens = tokens, .position = 100},                     // 50 tokens, 150 of context
      {.tokens = std::span(tokens).first(1), .position = 99},  // decode, 100 of context
      {.tokens = std::span(tokens).first(1), .position = 0},   // a prompt of one token
  };
  EXPECT_EQ(ModelledStepTime(pace, batch),
            absl::Microseconds(10000 + 5000 + 150 + 1000 + 100 + 100 + 1));
  EXPECT_EQ(ModelledStepTime({}, batch), absl::ZeroDuration());
}

TEST(FakeExecutor, WaitsOnceAStep) {
  std::vector<absl::Duration> waits;
  FakeOptions options = SmallOptions();
  options.pace.per_prefill_token = absl::Milliseconds(2);
  options.wait = [&](absl::Duration time) { waits.push_back(time); };
  Fixture fixture(options);
  fixture.Next(Prompt(10), 0, {0});
  EXPECT_EQ(waits, std::vector<absl::Duration>{absl::Milliseconds(20)});
}

TEST(FakeExecutor, StepErrorsNameTheSequenceAndLeaveThePages) {
  Fixture fixture;
  const std::vector<std::byte> before = fixture.memory();
  const SamplingParams params;
  const std::vector<TokenId> good = Prompt(20);
  const std::vector<TokenId> big = {1, 1000};
  const std::vector<TokenId> negative = {-1};
  const std::vector<TokenId> longer = Prompt(401);
  const std::vector<PageIndex> pages = PagesFrom(10, 40);
  const std::vector<PageIndex> outside = {64};
  const std::vector<PageIndex> twice = {12, 12};
  struct Case {
    StepSequence sequence;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{.tokens = {}, .pages = pages}, "no new tokens"},
      {{.tokens = big, .pages = pages}, "token 1000 is outside the vocabulary of 1000"},
      {{.tokens = negative, .pages = pages}, "token -1"},
      {{.tokens = good, .position = -1, .pages = pages}, "position is -1"},
      {{.tokens = longer, .pages = pages}, "401 tokens; the model's context has 400"},
      {{.tokens = good, .position = 381, .pages = pages}, "401 tokens"},
      {{.tokens = good, .pages = std::span(pages).first(1)}, "need 2"},
      {{.tokens = std::span(good).first(1), .pages = outside},
       "page 64 is outside the arena of 64"},
      {{.tokens = good, .pages = twice}, "page 12 is written twice"},
      {{.tokens = good, .pages = pages, .sample = SampleRequest{&params, big, 1}}, "must be 20"},
      {{.tokens = good, .pages = pages, .sample = SampleRequest{nullptr, good, 1}},
       "no parameters"},
  };
  const std::vector<PageIndex> first = {0, 1};
  for (const Case& bad : cases) {
    const std::vector<StepSequence> batch = {{.tokens = good, .pages = first}, bad.sequence};
    const absl::Status status = fixture.executor().Step(batch).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad.message;
    EXPECT_EQ(Message(status).find("sequence 1: "), 0u) << Message(status);
    EXPECT_NE(Message(status).find(bad.message), std::string::npos) << Message(status);
  }
  EXPECT_EQ(fixture.memory(), before);
}

TEST(FakeExecutor, PagesAreSharedForReadingOnly) {
  Fixture fixture;
  const std::vector<TokenId> prompt = Prompt(kBlock);
  fixture.Next(prompt, 0, {0});
  const std::vector<TokenId> tail = {5};
  const std::vector<PageIndex> a = {0, 1};
  const std::vector<PageIndex> b = {0, 2};
  const std::vector<StepSequence> shared = {{.tokens = tail, .position = kBlock, .pages = a},
                                            {.tokens = tail, .position = kBlock, .pages = b}};
  EXPECT_TRUE(fixture.executor().Step(shared).ok());
  const std::vector<StepSequence> clash = {{.tokens = tail, .position = kBlock, .pages = a},
                                           {.tokens = prompt, .position = 0, .pages = b}};
  const absl::Status status = fixture.executor().Step(clash).status();
  EXPECT_NE(Message(status).find("page 0 is read and also written"), std::string::npos) << status;
}

TEST(FakeExecutor, CreateNamesTheBadOption) {
  std::vector<std::byte> memory(SmallLayout().page_bytes());
  const auto message = [&](auto change, int pages = 1) {
    FakeOptions options = SmallOptions();
    change(options);
    return Message(FakeExecutor::Create(options, {memory.data(), pages}).status());
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(message([](auto& o) { o.layout.layers = 0; }), "layers"));
  EXPECT_TRUE(has(message([](auto& o) { o.vocab_size = 1; }), "vocab_size"));
  EXPECT_TRUE(has(message([](auto& o) { o.max_context = 0; }), "max_context"));
  EXPECT_TRUE(has(message([](auto& o) { o.eos_token = 1000; }), "eos_token"));
  EXPECT_TRUE(has(message([](auto& o) { o.eos_probability = 1.5; }), "eos_probability"));
  EXPECT_TRUE(has(message([](auto& o) { o.pace.per_step = -absl::Seconds(1); }), "pace"));
  EXPECT_TRUE(has(message([](auto&) {}, 0), "arena"));
}

}  // namespace
}  // namespace tarn::engine
