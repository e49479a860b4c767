#include <glog/logging.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "common/base/status.h"
#include "engine/request/answer_text.h"
#include "engine/request/resolve.h"
#include "engine/request/text_model.h"
#include "engine/text/bpe_trainer.h"

namespace tarn::engine {
namespace {

class RequestTest : public testing::Test {
 protected:
  RequestTest() {
    auto trained = TrainBpe(DemoCorpus(), {.vocab_size = 512});
    CHECK(trained.ok()) << trained.status();
    auto tokenizer = Tokenizer::FromJson(TokenizerJson(*trained), TokenizerConfigJson(*trained));
    CHECK(tokenizer.ok()) << tokenizer.status();
    model_.tokenizer = std::move(*tokenizer);
    model_.name = "test";
    model_.config.vocab_size = 512;
    model_.config.max_position = 100;
    model_.generation.eos_token_ids = {trained->eos()};
    model_.generation.temperature = 0.5f;
    model_.generation.top_k = 20;
  }

  absl::StatusOr<ResolvedRequest> Try(const v1::SamplingParams& sampling,
                                      std::vector<TokenId> prompt = {1, 2, 3}) {
    return Resolve(std::move(prompt), sampling, model_, 77);
  }

  // The message of the refusal, which must be INVALID_ARGUMENT.
  std::string Refusal(const v1::SamplingParams& sampling, std::vector<TokenId> prompt = {1, 2, 3}) {
    const auto result = Try(sampling, std::move(prompt));
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
    return Message(result.status());
  }

  TextModel model_;
};

TEST_F(RequestTest, UnsetFieldsTakeTheModelsDefaultsThenVllms) {
  const auto request = Try({});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0.5f);
  EXPECT_EQ(request->sampling.top_k, 20);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_EQ(request->sampling.seed, 77u);
  EXPECT_EQ(request->max_new_tokens, 97);
  EXPECT_EQ(request->end_tokens, model_.generation.eos_token_ids);
  EXPECT_TRUE(request->skip_special);
}

TEST_F(RequestTest, SetFieldsWin) {
  v1::SamplingParams sampling;
  sampling.set_temperature(0);
  sampling.set_seed(5);
  sampling.set_max_tokens(4);
  sampling.set_ignore_eos(true);
  sampling.add_stop_token_ids(9);
  sampling.add_stop_token_ids(9);
  const auto request = Try(sampling);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.seed, 5u);
  EXPECT_EQ(request->max_new_tokens, 4);
  EXPECT_EQ(request->end_tokens, std::vector<TokenId>{9});
}

TEST_F(RequestTest, RefusalsNameFieldAndLimit) {
  v1::SamplingParams sampling;
  EXPECT_EQ(Refusal(sampling, {}), "prompt: is empty; at least one token is needed");
  EXPECT_EQ(Refusal(sampling, {0, 512}), "prompt: token 1 is 512; ids are 0 to 511");
  EXPECT_EQ(Refusal(sampling, {-1}), "prompt: token 0 is -1; ids are 0 to 511");
  EXPECT_EQ(Refusal(sampling, std::vector<TokenId>(100, 1)),
            "prompt: has 100 tokens; the model's context of 100 takes at most 99, and one for the "
            "answer");
  sampling.set_max_tokens(0);
  EXPECT_EQ(Refusal(sampling), "max_tokens: is 0; at least 1");
  sampling.set_max_tokens(98);
  EXPECT_EQ(Refusal(sampling),
            "max_tokens: is 98; the prompt has 3 tokens and the model's context is 100, so at most "
            "97");
  sampling.set_max_tokens(std::numeric_limits<uint32_t>::max());
  EXPECT_NE(Refusal(sampling).find("max_tokens"), std::string::npos);
  sampling.set_max_tokens(5);
  sampling.set_min_tokens(6);
  EXPECT_EQ(Refusal(sampling), "min_tokens: is 6; at most max_tokens, which is 5");
}

TEST_F(RequestTest, RefusesNotANumberAndNegativeParameters) {
  for (const float bad : {std::nanf(""), -1.0f, std::numeric_limits<float>::infinity()}) {
    v1::SamplingParams sampling;
    sampling.set_temperature(bad);
    EXPECT_NE(Refusal(sampling).find("temperature"), std::string::npos);
    sampling.Clear();
    sampling.set_top_p(bad);
    EXPECT_NE(Refusal(sampling).find("top_p"), std::string::npos);
    sampling.Clear();
    sampling.set_min_p(bad);
    EXPECT_NE(Refusal(sampling).find("min_p"), std::string::npos);
  }
}

TEST_F(RequestTest, RefusesTooManyOrEmptyStops) {
  v1::SamplingParams sampling;
  sampling.add_stop("");
  EXPECT_EQ(Refusal(sampling), "stop[0]: has 0 bytes; 1 to 1024");
  sampling.Clear();
  for (int i = 0; i < 65; ++i) sampling.add_stop("x");
  EXPECT_EQ(Refusal(sampling), "stop: has 65 strings; at most 64");
  sampling.Clear();
  sampling.add_stop_token_ids(512);
  EXPECT_EQ(Refusal(sampling), "stop_token_ids: 512 is no token; ids are 0 to 511");
}

TEST_F(RequestTest, PromptsAreUtf8) {
  const auto tokens = EncodePrompt("a tarn", model_);
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(model_.tokenizer->Decode(*tokens), "a tarn");
  EXPECT_EQ(Message(EncodePrompt("ab\xff", model_).status()),
            "prompt: is not valid UTF-8 at byte 2 of 3");
}

class AnswerTextTest : public RequestTest {
 protected:
  // All text that `request` lets through of `tokens`, and whether it stopped.
  std::pair<std::string, bool> Text(const ResolvedRequest& request,
                                    const std::vector<TokenId>& tokens) {
    auto answer = AnswerText::Create(request, *model_.tokenizer);
    CHECK(answer.ok());
    std::string text;
    for (const TokenId token : tokens) {
      text += answer->Push(token);
      if (answer->stopped()) break;
    }
    text += answer->Flush();
    return {text, answer->stopped()};
  }
  std::vector<TokenId> Encode(const std::string& text) { return model_.tokenizer->Encode(text); }
};

TEST_F(AnswerTextTest, StopStringEndsTheText) {
  v1::SamplingParams sampling;
  sampling.add_stop("and any");
  auto request = *Try(sampling);
  const auto tokens = Encode("fed by every node and any node");
  EXPECT_EQ(Text(request, tokens), std::make_pair(std::string("fed by every node "), true));
  request.include_stop = true;
  EXPECT_EQ(Text(request, tokens), std::make_pair(std::string("fed by every node and any"), true));
}

TEST_F(AnswerTextTest, HeldBackTextComesAtTheEnd) {
  v1::SamplingParams sampling;
  sampling.add_stop("node!");
  EXPECT_EQ(Text(*Try(sampling), Encode("any node")),
            std::make_pair(std::string("any node"), false));
}

TEST_F(AnswerTextTest, EndTokensHaveNoText) {
  v1::SamplingParams sampling;
  auto tokens = Encode("a pool");
  sampling.add_stop_token_ids(tokens.back());
  auto request = *Try(sampling);
  auto without_last = tokens;
  without_last.pop_back();
  EXPECT_EQ(Text(request, tokens).first, model_.tokenizer->Decode(without_last));
}

}  // namespace
}  // namespace tarn::engine
