#include "engine/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/text/small_tokenizer.h"
#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

TEST(Detokenizer, HoldsBackHalfACharacter) {
  const auto tokenizer = Make({});
  StreamDetokenizer stream(*tokenizer);
  std::vector<std::string> pieces;
  for (const TokenId token : tokenizer->Encode("a湖!")) pieces.push_back(stream.Push(token));
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "", "", "湖", "!"}));
  EXPECT_EQ(stream.Flush(), "");
}

TEST(Detokenizer, InvalidBytesAreReplacedOnceKnown) {
  const auto tokenizer = Make({});
  StreamDetokenizer stream(*tokenizer);
  const auto tokens = tokenizer->Encode(
      "\xE6\xB9"
      "a\xE6");
  EXPECT_EQ(stream.Push(tokens[0]), "");
  EXPECT_EQ(stream.Push(tokens[1]), "");
  EXPECT_EQ(stream.Push(tokens[2]), "\uFFFDa");
  EXPECT_EQ(stream.Push(tokens[3]), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(Detokenizer, SpecialTokensByOption) {
  const auto tokenizer = DemoTokenizer(ChatForm::kChatMl);
  EXPECT_EQ(StreamDetokenizer(*tokenizer).Push(*tokenizer->eos()), "");
  EXPECT_EQ(StreamDetokenizer(*tokenizer, false).Push(*tokenizer->eos()), "<|im_end|>");
}

TEST(Detokenizer, PiecesAreValidAndAddUpToTheWhole) {
  const auto tokenizer = DemoTokenizer(ChatForm::kLlama3);
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    std::vector<TokenId> tokens(random() % 60);
    for (TokenId& token : tokens) token = random() % (random() % 2 ? 256 : tokenizer->vocab_size());
    StreamDetokenizer stream(*tokenizer);
    std::string text;
    for (const TokenId token : tokens) {
      const std::string piece = stream.Push(token);
      ASSERT_EQ(ValidUtf8Prefix(piece), piece.size());
      text += piece;
    }
    text += stream.Flush();
    ASSERT_EQ(text, LossyUtf8(tokenizer->Decode(tokens, /*skip_special=*/true)));
  }
}

}  // namespace
}  // namespace tarn::engine
