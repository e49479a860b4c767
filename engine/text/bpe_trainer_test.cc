#include "engine/text/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/status.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TrainedTokenizer Train(std::string_view corpus, const BpeTrainOptions& options) {
  auto trained = TrainBpe(corpus, options);
  EXPECT_TRUE(trained.ok()) << trained.status();
  return *std::move(trained);
}

TEST(BpeTrainer, JoinsTheMostFrequentPair) {
  // Words: "low" 3 times, " low" once, " new" twice.
  const auto trained = Train("low\nlow\nlow low new new", {.vocab_size = 262});
  EXPECT_THAT(trained.merges, ElementsAre(Pair("l", "o"), Pair("lo", "w"), Pair("e", "w")));
  EXPECT_EQ(trained.vocab.size(), 259u);
  EXPECT_EQ(trained.vocab.back(), "ew");  // As often as "Ġn", but of smaller ids.
}

TEST(BpeTrainer, FillsUpWithReservedTokens) {
  const auto trained = Train("aaaa aaaa", {.vocab_size = 300});
  EXPECT_EQ(trained.vocab_size(), 300);
  EXPECT_GT(trained.reserved_count, 30);
  EXPECT_EQ(trained.special_tokens.back(),
            "<|reserved_" + std::to_string(trained.reserved_count - 1) + "|>");
}

TEST(BpeTrainer, IsDeterministic) {
  const auto a = Train(DemoCorpus(), {});
  const auto b = Train(DemoCorpus(), {});
  EXPECT_EQ(TokenizerJson(a), TokenizerJson(b));
}

TEST(BpeTrainer, RefusesWhatCannotWork) {
  EXPECT_THAT(Message(TrainBpe("ab\xFF", {}).status()), HasSubstr("byte 2"));
  EXPECT_THAT(Message(TrainBpe("ab", {.vocab_size = 258}).status()), HasSubstr("vocab_size 258"));
}

class Demo : public ::testing::TestWithParam<ChatForm> {};

TEST_P(Demo, CorpusYieldsAtLeastAThousandMerges) {
  const auto trained = Train(DemoCorpus(), {.form = GetParam()});
  EXPECT_GE(trained.merges.size(), 1000u);
  EXPECT_EQ(trained.vocab_size(), 2048);
}

TEST_P(Demo, FilesLoadAndMakeTextShorter) {
  const auto directory = std::filesystem::path(::testing::TempDir()) /
                         ("demo" + std::to_string(static_cast<int>(GetParam())));
  std::filesystem::create_directories(directory);
  const auto trained = Train(DemoCorpus(), {.form = GetParam()});
  ASSERT_TRUE(WriteTokenizerFiles(directory, trained).ok());

  auto loaded = Tokenizer::Load(directory);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::shared_ptr<const Tokenizer> tokenizer = *std::move(loaded);
  EXPECT_EQ(tokenizer->vocab_size(), trained.vocab_size());
  EXPECT_EQ(tokenizer->eos(), trained.eos());
  const std::string text = "The machine reads the question, and 湖水 is water.";
  const auto tokens = tokenizer->Encode(text, {.add_special_tokens = false});
  EXPECT_LT(tokens.size(), text.size() / 2);
  EXPECT_EQ(tokenizer->Decode(tokens), text);

  const auto chat = ChatTemplate::Load(directory, tokenizer);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->form(), GetParam());
  EXPECT_EQ(chat->end_of_turn(), trained.eos());
}

INSTANTIATE_TEST_SUITE_P(Forms, Demo, ::testing::Values(ChatForm::kChatMl, ChatForm::kLlama3));

TEST(BpeTrainer, WritingNowhereNamesTheFile) {
  const auto status = WriteTokenizerFiles("/nonexistent", Train("a", {.vocab_size = 300}));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(Message(status), HasSubstr("/nonexistent/tokenizer.json"));
}

}  // namespace
}  // namespace tarn::engine
