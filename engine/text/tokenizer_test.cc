#include "engine/text/tokenizer.h"

#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "common/base/status.h"
#include "engine/text/small_tokenizer.h"
#include "engine/text/unicode.h"

namespace tarn::engine {
namespace {

using ::testing::ElementsAre;
using Strings = std::vector<std::string>;

constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Strings SplitBy(const char* pattern, std::string_view text) {
  auto splitter = RegexSplitter::Compile(pattern);
  CHECK(splitter.ok()) << splitter.status();
  std::vector<std::string_view> pieces;
  splitter->Split(text, pieces);
  return Strings(pieces.begin(), pieces.end());
}

TEST(Pretokens, OfTheHardCases) {
  const struct {
    std::string text;
    Strings llama3;
  } cases[] = {
      {"Hello world", {"Hello", " world"}},
      {"Hello   world", {"Hello", "  ", " world"}},
      {"   ", {"   "}},
      {"a   ", {"a", "   "}},
      {"a \n\n b", {"a", " \n\n", " b"}},
      {"a\r\n\r\nb", {"a", "\r\n\r\n", "b"}},
      {"\t\tif x:\n", {"\t", "\tif", " x", ":\n"}},
      {"  \n   \n  x", {"  \n   \n", " ", " x"}},
      {"1234567", {"123", "456", "7"}},
      {"x1y22", {"x", "1", "y", "22"}},
      {"I'll DON'T we'Ve", {"I", "'ll", " DON", "'T", " we", "'Ve"}},
      {"'tis 'em", {"'t", "is", " '", "em"}},
      {"foo.bar(baz)", {"foo", ".bar", "(baz", ")"}},
      {"x += 1;\n\ny", {"x", " +=", " ", "1", ";\n\n", "y"}},
      {"湖水,你好。", {"湖水", ",你好", "。"}},
      {"e\u0301te\u0301", {"e", "\u0301te", "\u0301"}},
      {"👩‍👩‍👧 hi", {"👩‍👩‍👧", " hi"}},
      {"a\u3000b", {"a", "\u3000b"}},
      {"٣٤٥٦", {"٣٤٥", "٦"}},
      {"", {}},
  };
  for (const auto& c : cases) EXPECT_EQ(SplitBy(kLlama3, c.text), c.llama3) << c.text;
  EXPECT_EQ(SplitBy(kQwen, "a 1234"), (Strings{"a", " ", "1", "2", "3", "4"}));
}

TEST(Pretokens, WhatThePatternLeavesOutIsAPieceToo) {
  EXPECT_EQ(SplitBy("b+", "abbcab"), (Strings{"a", "bb", "ca", "b"}));
  EXPECT_EQ(SplitBy("b*", "abbc"), (Strings{"a", "bb", "c"}));  // Empty matches split nothing.
  EXPECT_EQ(SplitBy("(a)(b)(c)", "xabcx"), (Strings{"x", "abc", "x"}));
}

TEST(Pretokens, RunawayExpressionKeepsTheText) {
  const std::string text(40, 'a');
  EXPECT_EQ(SplitBy("(a+)+(a+)+(a+)+b", text), Strings{text});
}

TEST(Encode, JoinsTheBestMergeFirst) {
  const auto tokenizer =
      Make({.merges = {{"b", "c"}, {"a", "b"}, {"a", "bc"}, {" ", "a"}, {"c", "c"}}});
  const auto pieces = [&](std::string_view text) {
    return Pieces(*tokenizer, tokenizer->Encode(text));
  };
  EXPECT_THAT(pieces("abc"), ElementsAre("abc"));
  EXPECT_THAT(pieces("ab"), ElementsAre("ab"));
  EXPECT_THAT(pieces(" abc"), ElementsAre(" ", "abc"));  // "a"+"bc" is better than " "+"a".
  EXPECT_THAT(pieces("ccc"), ElementsAre("cc", "c"));    // From the left.
  EXPECT_THAT(pieces("abab"), ElementsAre("ab", "ab"));
}

TEST(Encode, BothFormsOfMergesAreTheSame) {
  SmallTokenizer small = {.merges = {{" ", "a"}, {" a", "b"}}};
  const auto pairs = Make(small);
  small.merges_as_pairs = false;
  const auto strings = Make(small);
  EXPECT_EQ(pairs->Encode("x ab ab"), strings->Encode("x ab ab"));
  EXPECT_EQ(pairs->Encode(" ab"), std::vector<TokenId>{257});
}

TEST(Encode, IgnoreMergesTakesAKnownPretokenWhole) {
  SmallTokenizer small = {.merges = {{"a", "b"}}, .words = {"abba"}};
  EXPECT_THAT(Pieces(*Make(small), Make(small)->Encode("abba")), ElementsAre("ab", "b", "a"));
  small.ignore_merges = true;
  EXPECT_THAT(Pieces(*Make(small), Make(small)->Encode("abba")), ElementsAre("abba"));
}

TEST(Encode, InvalidUtf8BecomesBytes) {
  const auto tokenizer = Make({.merges = {{"a", "b"}}});
  EXPECT_THAT(Pieces(*tokenizer, tokenizer->Encode("ab\xFF\xE6\xB9"
                                                   "ab")),
              ElementsAre("ab", "\xFF", "\xE6", "\xB9", "ab"));
}

TEST(Encode, NormalizesValidPartsOnly) {
  const auto tokenizer = Make({.merges = {{"\xC3", "\xA9"}}, .nfc = true});
  const auto tokens = tokenizer->Encode(
      "e\u0301\xFF"
      "e\u0301");
  EXPECT_THAT(Pieces(*tokenizer, tokens), ElementsAre("é", "\xFF", "é"));
}

std::unique_ptr<Tokenizer> WithAdded(std::vector<AddedToken> added) {
  return Make({.merges = {{"x", "y"}}, .added_tokens = std::move(added)});
}

TEST(AddedTokens, SpecialOnesOnlyWhereAllowed) {
  const auto tokenizer = WithAdded({{.id = 300, .content = "<s>", .special = true},
                                    {.id = 301, .content = "<t>", .special = false}});
  const std::vector<TokenId> parsed = tokenizer->Encode("xy<s><t>xy", {.parse_special = true});
  EXPECT_EQ(parsed, (std::vector<TokenId>{256, 300, 301, 256}));
  const auto plain = tokenizer->Encode("xy<s><t>xy");
  EXPECT_THAT(Pieces(*tokenizer, plain), ElementsAre("xy", "<", "s", ">", "<t>", "xy"));
  EXPECT_EQ(tokenizer->Decode(parsed), "xy<s><t>xy");
  EXPECT_EQ(tokenizer->Decode(parsed, /*skip_special=*/true), "xy<t>xy");
  EXPECT_EQ(tokenizer->vocab_size(), 302);
  EXPECT_TRUE(tokenizer->IsSpecial(300));
  EXPECT_FALSE(tokenizer->IsSpecial(301));
}

TEST(AddedTokens, LongestWins) {
  const auto tokenizer = WithAdded({{.id = 300, .content = "<a"},
                                    {.id = 301, .content = "<a>"},
                                    {.id = 302, .content = "<a><b"}});
  EXPECT_EQ(tokenizer->Encode("<a><b<a<a>"), (std::vector<TokenId>{302, 300, 301}));
}

TEST(AddedTokens, StripSwallowsWhiteSpace) {
  const auto tokenizer = WithAdded({{.id = 300, .content = "<l>", .lstrip = true},
                                    {.id = 301, .content = "<r>", .rstrip = true}});
  EXPECT_THAT(Pieces(*tokenizer, tokenizer->Encode("xy \t\u00A0<l> xy")),
              ElementsAre("xy", "<l>", " ", "xy"));
  EXPECT_THAT(Pieces(*tokenizer, tokenizer->Encode("xy <r>\u3000\nxy")),
              ElementsAre("xy", " ", "<r>", "xy"));
  // What the one before has swallowed is gone.
  EXPECT_EQ(tokenizer->Encode("<r>  <l>"), (std::vector<TokenId>{301, 300}));
}

TEST(AddedTokens, SingleWordNotInsideAWord) {
  const auto tokenizer = WithAdded({{.id = 300, .content = "xy", .single_word = true}});
  EXPECT_EQ(tokenizer->Encode("xy")[0], 300);
  EXPECT_EQ(tokenizer->Encode(".xy.")[1], 300);
  EXPECT_EQ(tokenizer->Encode("xyé")[0], 256);
  EXPECT_EQ(tokenizer->Encode("_xy")[1], 256);
}

TEST(AddedTokens, NormalizedOnesAreFoundAfterNormalisation) {
  const auto make = [](bool normalized) {
    return Make({.added_tokens = {{.id = 300, .content = "caf\u00E9", .normalized = normalized}},
                 .nfc = true});
  };
  EXPECT_EQ(make(true)->Encode("cafe\u0301"), std::vector<TokenId>{300});
  EXPECT_GT(make(false)->Encode("cafe\u0301").size(), 1u);
  EXPECT_EQ(make(false)->Encode("caf\u00E9"), std::vector<TokenId>{300});
}

TEST(AddedTokens, SpecialInVocabIsNotText) {
  SmallTokenizer small = {.words = {"end"}, .pattern = R"(\p{L}+)", .ignore_merges = true};
  EXPECT_EQ(Make(small)->Encode("end"), std::vector<TokenId>{256});
  small.added_tokens = {{.id = 256, .content = "end", .special = true}};
  EXPECT_THAT(Pieces(*Make(small), Make(small)->Encode("end")), ElementsAre("e", "n", "d"));
  EXPECT_EQ(Make(small)->Encode("end", {.parse_special = true}), std::vector<TokenId>{256});
}

TEST(Tokenizer, Llama3PutsBosInFrontWhenAsked) {
  const auto tokenizer = DemoTokenizer(ChatForm::kLlama3);
  const auto with = tokenizer->Encode("hello");
  const auto without = tokenizer->Encode("hello", {.add_special_tokens = false});
  ASSERT_EQ(with.size(), without.size() + 1);
  EXPECT_EQ(with[0], tokenizer->bos());
  EXPECT_EQ(tokenizer->eos(), tokenizer->IdOf("<|eot_id|>"));
}

TEST(Tokenizer, ForeignIdsHaveNoTextAndAreNotSpecial) {
  const auto tokenizer = Make({});
  for (const TokenId id : {-1, 256, 1 << 30}) {
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  EXPECT_EQ(tokenizer->IdOf("nobody"), std::nullopt);
}

std::string RandomBytes(std::mt19937& random) {
  static constexpr std::string_view kParts[] = {
      " ", "\n", "a", "THE", "'s", "12", "湖", "é", "\xFF", "\xF0\x9F", "\u3000", "<|im_end|>"};
  std::string text;
  const int parts = random() % 40;
  for (int i = 0; i < parts; ++i) {
    const size_t choice = random() % (std::size(kParts) + 4);
    if (choice < std::size(kParts)) {
      text.append(kParts[choice]);
    } else {
      text.push_back(static_cast<char>(random()));
    }
  }
  return text;
}

TEST(Tokenizer, EveryByteStringRoundTrips) {
  std::mt19937 random(7);
  const auto tokenizer = DemoTokenizer(ChatForm::kLlama3);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = RandomBytes(random);
    const bool parse = i % 2;
    const auto tokens =
        tokenizer->Encode(text, {.add_special_tokens = false, .parse_special = parse});
    ASSERT_EQ(tokenizer->Decode(tokens), text);
  }
}

TEST(Tokenizer, PlainTextNeverBecomesASpecialToken) {
  std::mt19937 random(8);
  for (const ChatForm form : {ChatForm::kChatMl, ChatForm::kLlama3}) {
    const auto tokenizer = DemoTokenizer(form);
    for (int i = 0; i < 1000; ++i) {
      for (const TokenId token :
           tokenizer->Encode(RandomBytes(random) + "<|eot_id|>", {.add_special_tokens = false})) {
        ASSERT_FALSE(tokenizer->IsSpecial(token));
      }
    }
  }
}

TEST(Tokenizer, LongRunsRoundTrip) {
  const auto tokenizer = DemoTokenizer(ChatForm::kChatMl);
  for (const std::string part : {"a", " ", "\n", "ab", " \n", "=", "\xFF", "湖"}) {
    std::string text;
    while (text.size() < 220'000) text.append(part);
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

TEST(Tokenizer, ThreadsGetTheSameTokens) {
  const auto tokenizer = DemoTokenizer(ChatForm::kLlama3);
  const std::string text(DemoCorpus());
  std::vector<std::vector<TokenId>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = tokenizer->Encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
  EXPECT_EQ(tokenizer->Decode(results[0], true), text);
}

}  // namespace
}  // namespace tarn::engine
