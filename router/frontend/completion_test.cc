#include "router/frontend/completion.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "common/base/status.h"
#include "common/rpc/status.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "router/frontend/test_model.h"
#include "router/session/fake_gateway.h"

namespace tarn::router {
namespace {

// Keeps all, and can let go of the completion at a moment of the test's choice.
struct Recorder : CompletionListener {
  struct Choice {
    std::string text;
    std::vector<TokenId> tokens;
    std::vector<engine::SampledToken> sampled;
    int chunks = 0;
    std::optional<FinishReason> finish;
  };
  std::map<int, Choice> choices;
  int ends = 0;
  absl::Status status;
  CompletionUsage usage;
  std::function<void()> on_chunk, on_end;

  void OnChunk(CompletionChunk chunk) override {
    EXPECT_EQ(ends, 0);
    Choice& choice = choices[chunk.choice];
    EXPECT_FALSE(choice.finish.has_value());
    ++choice.chunks;
    choice.text += chunk.text;
    for (const auto& token : chunk.tokens) choice.tokens.push_back(token.token);
    choice.sampled.insert(choice.sampled.end(), chunk.tokens.begin(), chunk.tokens.end());
    choice.finish = chunk.finish;
    if (on_chunk) on_chunk();
  }
  void OnEnd(const absl::Status& why, const CompletionUsage& all) override {
    ++ends;
    status = why;
    usage = all;
    if (on_end) on_end();
  }
};

class CompletionTest : public testing::Test {
 protected:
  // The gateway answers every request with this text.
  void Answer(const std::string& text) {
    const std::vector<TokenId> tokens = model_->tokenizer->Encode(text);
    gateway_.SetScript([tokens](const GenerationRequest&) { return tokens; });
  }

  CompletionRequest Ask(const v1::SamplingParams& sampling = {}, int prompts = 1) {
    CompletionRequest request;
    for (int i = 0; i < prompts; ++i) {
      auto resolved = engine::Resolve(std::vector<TokenId>(10 + i, 5), sampling, *model_, 1000 + i);
      CHECK(resolved.ok()) << resolved.status();
      request.prompts.push_back(*std::move(resolved));
    }
    request.stream = true;
    request.received = loop_.Now();
    request.deadline = loop_.Now() + absl::Minutes(1);
    return request;
  }

  static v1::SamplingParams Sampling(int max_tokens, const std::vector<std::string>& stop = {}) {
    v1::SamplingParams sampling;
    sampling.set_max_tokens(max_tokens);
    for (const std::string& text : stop) sampling.add_stop(text);
    return sampling;
  }

  void Start(CompletionRequest request) {
    auto completion = Completion::Start(&loop_, &gateway_, model_, std::move(request), &recorder_);
    CHECK(completion.ok()) << completion.status();
    completion_ = *std::move(completion);
  }
  void Run(CompletionRequest request) {
    Start(std::move(request));
    loop_.RunUntilIdle();
    EXPECT_EQ(recorder_.ends, 1);
    EXPECT_EQ(gateway_.running(), 0);
  }

  SimEventLoop loop_;
  FakeGateway gateway_{&loop_};
  const std::shared_ptr<const engine::TextModel> model_ = MakeTestModel();
  Recorder recorder_;
  std::unique_ptr<Completion> completion_;
};

TEST_F(CompletionTest, StreamsTokensAndText) {
  Answer("every node of the pool");
  gateway_.SetOptions({.cached_tokens = 4});
  auto request = Ask(Sampling(5));
  request.tenant = "acme";
  request.cache_salt = "s";
  request.priority = 3;
  request.tokenize = absl::Milliseconds(7);
  Run(std::move(request));
  const Recorder::Choice& choice = recorder_.choices[0];
  EXPECT_TRUE(recorder_.status.ok());
  EXPECT_EQ(choice.finish, FinishReason::kLength);
  EXPECT_EQ(choice.tokens.size(), 5u);
  EXPECT_GE(choice.chunks, 5);
  EXPECT_EQ(choice.text, model_->tokenizer->Decode(choice.tokens));
  EXPECT_EQ(recorder_.usage.prompt_tokens, 10);
  EXPECT_EQ(recorder_.usage.completion_tokens, 5);
  EXPECT_EQ(recorder_.usage.cached_tokens, 4);
  EXPECT_EQ(recorder_.usage.tokenize, absl::Milliseconds(7));
  EXPECT_EQ(recorder_.usage.first.prefill_node, "fake-prefill");
  const GenerationRequest& sent = gateway_.requests()[0];
  EXPECT_EQ(sent.salt, SaltFor("acme", "s"));
  EXPECT_EQ(sent.tenant, "acme");
  EXPECT_EQ(sent.priority, 3);
  EXPECT_EQ(sent.end_tokens, model_->generation.eos_token_ids);
}

TEST_F(CompletionTest, WholeAnswersComeInOneChunkAndAreTheSame) {
  Answer("every node of the pool, and any other");
  Run(Ask(Sampling(9)));
  const Recorder::Choice streamed = recorder_.choices[0];
  recorder_ = {};
  auto request = Ask(Sampling(9));
  request.stream = false;
  Run(std::move(request));
  const Recorder::Choice& whole = recorder_.choices[0];
  EXPECT_EQ(whole.chunks, 1);
  EXPECT_EQ(whole.text, streamed.text);
  EXPECT_EQ(whole.tokens, streamed.tokens);
  EXPECT_EQ(whole.finish, streamed.finish);
}

TEST_F(CompletionTest, ChoicesSampleWithSeedsInARowForEachPrompt) {
  v1::SamplingParams sampling = Sampling(2);
  sampling.set_seed(40);
  auto request = Ask(sampling, 2);
  request.choices_per_prompt = 3;
  Run(std::move(request));
  ASSERT_EQ(gateway_.requests().size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(gateway_.requests()[i].sampling.seed, 40u + i % 3);
    EXPECT_EQ(gateway_.requests()[i].prompt.size(), 10u + i / 3);
    EXPECT_EQ(recorder_.choices[i].finish, FinishReason::kLength);
  }
  EXPECT_EQ(recorder_.usage.prompt_tokens, 10 + 11);
  EXPECT_EQ(recorder_.usage.completion_tokens, 12);
}

TEST_F(CompletionTest, AStopStringOverTokenBordersCancelsTheRest) {
  // All tokens come at once: those behind the stop string must not show.
  gateway_.SetOptions({.tokens_at_once = 100});
  const std::string text = "every node of the pool has a page";
  const std::vector<TokenId> tokens = model_->tokenizer->Encode(text);
  const std::string stop = text.substr(8, 9);  // from inside a word into another
  Answer(text);
  for (const bool stream : {true, false}) {
    recorder_ = {};
    auto request = Ask(Sampling(50, {stop}));
    request.stream = stream;
    Run(std::move(request));
    const Recorder::Choice& choice = recorder_.choices[0];
    EXPECT_EQ(choice.text, text.substr(0, 8));
    EXPECT_EQ(choice.finish, FinishReason::kStop);
    // The shortest list of tokens that has the stop string in it.
    const std::string said = model_->tokenizer->Decode(choice.tokens);
    EXPECT_NE(said.find(stop), std::string::npos);
    auto fewer = choice.tokens;
    fewer.pop_back();
    EXPECT_EQ(model_->tokenizer->Decode(fewer).find(stop), std::string::npos);
    EXPECT_LT(choice.tokens.size(), tokens.size());
    EXPECT_EQ(recorder_.usage.completion_tokens, static_cast<int>(choice.tokens.size()));
    EXPECT_EQ(recorder_.usage.first.decode_node, "fake-decode");
  }
  EXPECT_EQ(gateway_.cancelled(), 2);
}

TEST_F(CompletionTest, WithoutTextStopStringsStillWork) {
  Answer("every node of the pool");
  auto request = Ask(Sampling(50, {"of"}));
  request.detokenize = false;
  Run(std::move(request));
  EXPECT_EQ(recorder_.choices[0].text, "");
  EXPECT_EQ(recorder_.choices[0].finish, FinishReason::kStop);
  EXPECT_LT(recorder_.choices[0].tokens.size(), 20u);
}

TEST_F(CompletionTest, ACharacterCutByTheEndIsReplaced) {
  const std::vector<TokenId> tokens = model_->tokenizer->Encode("\xe2\x82");
  gateway_.SetScript([tokens](const GenerationRequest&) { return tokens; });
  Run(Ask(Sampling(static_cast<int>(tokens.size()))));
  EXPECT_EQ(recorder_.choices[0].text, "\xef\xbf\xbd");
}

TEST_F(CompletionTest, AnEndTokenIsCountedAndSilent) {
  const TokenId eos = model_->generation.eos_token_ids[0];
  gateway_.SetScript([eos](const GenerationRequest&) { return std::vector<TokenId>{70, eos}; });
  Run(Ask(Sampling(10)));
  EXPECT_EQ(recorder_.choices[0].tokens, (std::vector<TokenId>{70, eos}));
  EXPECT_EQ(recorder_.choices[0].finish, FinishReason::kStop);
  EXPECT_EQ(recorder_.choices[0].text, model_->tokenizer->TokenBytes(70));
  EXPECT_EQ(recorder_.usage.completion_tokens, 2);
}

TEST_F(CompletionTest, LogprobsComeWithTheirTokens) {
  v1::SamplingParams sampling = Sampling(3);
  sampling.set_logprobs(2);
  Run(Ask(sampling));
  ASSERT_EQ(recorder_.choices[0].sampled.size(), 3u);
  for (const auto& token : recorder_.choices[0].sampled) {
    EXPECT_EQ(token.top_logprobs.size(), 2u);
  }
}

TEST_F(CompletionTest, OneFailedChoiceEndsAllAndKeepsTheHint) {
  gateway_.FailNext({.status = absl::ResourceExhaustedError("full"),
                     .retry_after = absl::Milliseconds(30),
                     .after_tokens = 2});
  auto request = Ask(Sampling(100));
  request.choices_per_prompt = 3;
  Run(std::move(request));
  EXPECT_EQ(recorder_.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(recorder_.status), absl::Milliseconds(30));
  EXPECT_EQ(gateway_.failed(), 1);
  EXPECT_EQ(gateway_.cancelled(), 2);
}

TEST_F(CompletionTest, TheDeadlineEndsIt) {
  gateway_.SetOptions({.first_token_after = absl::Hours(2)});
  auto request = Ask(Sampling(100));
  request.choices_per_prompt = 2;
  Run(std::move(request));
  EXPECT_EQ(recorder_.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Message(recorder_.status), "the request's time of 1m is over");
  EXPECT_EQ(loop_.Now(), gateway_.requests()[0].deadline);
  EXPECT_EQ(gateway_.cancelled(), 2);
}

TEST_F(CompletionTest, DestroyingItAtAnyMomentCancelsAll) {
  // After each number of tasks, and inside each callback.
  for (int steps = 0; steps < 30; ++steps) {
    auto request = Ask(Sampling(8));
    request.choices_per_prompt = 2;
    Start(std::move(request));
    for (int i = 0; i < steps; ++i) loop_.RunOne();
    completion_.reset();
    EXPECT_EQ(gateway_.running(), 0) << steps;
    const int ends = recorder_.ends;
    loop_.RunUntilIdle();
    EXPECT_EQ(recorder_.ends, ends);
    recorder_ = {};
  }
  for (int chunk = 1; chunk <= 12; ++chunk) {
    int left = chunk;
    recorder_.on_chunk = [&] {
      if (--left == 0) completion_.reset();
    };
    auto request = Ask(Sampling(6, {"qqqq"}));
    request.choices_per_prompt = 2;
    Start(std::move(request));
    loop_.RunUntilIdle();
    EXPECT_EQ(left, 0);
    EXPECT_EQ(recorder_.ends, 0);
    EXPECT_EQ(gateway_.running(), 0);
    recorder_ = {};
  }
  recorder_.on_end = [&] { completion_.reset(); };
  Run(Ask(Sampling(3)));
}

TEST_F(CompletionTest, LettingGoInTheMiddleOfAStopIsSafe) {
  Answer("every node of the pool");
  recorder_.on_chunk = [&] {
    if (recorder_.choices[0].finish.has_value()) completion_.reset();
  };
  Start(Ask(Sampling(50, {"of"})));
  loop_.RunUntilIdle();
  EXPECT_EQ(recorder_.choices[0].finish, FinishReason::kStop);
  EXPECT_EQ(recorder_.ends, 0);
  EXPECT_EQ(gateway_.cancelled(), 1);
}

}  // namespace
}  // namespace tarn::router
