#include "engine/text/utf8.h"

#include <gtest/gtest.h>

#include "engine/text/byte_level.h"
#include "engine/text/unicode.h"

namespace tarn::engine {
namespace {

TEST(Utf8, LossyReplacesMaximalSubparts) {
  const struct {
    std::string bytes, text;
  } cases[] = {
      {"plain", "plain"},
      {"\xC3\xA9", "é"},
      {"\xFF", "\uFFFD"},
      {"a\x80z", "a\uFFFDz"},
      // From the Unicode standard's table on U+FFFD substitution.
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64",
       "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd"},
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // over U+10FFFF
      {"x\xF0\x9F\x98", "x\uFFFD"},                      // cut off
  };
  for (const auto& c : cases) EXPECT_EQ(LossyUtf8(c.bytes), c.text);
}

TEST(Utf8, IncompleteSuffixIsWhatMoreBytesCouldComplete) {
  EXPECT_EQ(IncompleteUtf8Suffix(""), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("abc"), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("a\xC3"), 1u);
  EXPECT_EQ(IncompleteUtf8Suffix("a\xE2\x82"), 2u);
  EXPECT_EQ(IncompleteUtf8Suffix("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(IncompleteUtf8Suffix("a\xE2\x82\xAC"), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("\xE0\x80"), 0u);  // Overlong: nothing completes it.
}

TEST(Utf8, ValidPrefixEndsBeforeTheFirstBadByte) {
  EXPECT_EQ(ValidUtf8Prefix("0123456789abcdef\xFFgh"), 16u);
  EXPECT_EQ(ValidUtf8Prefix("湖湖湖"), 9u);
  EXPECT_EQ(ValidUtf8Prefix("湖\xE6\xB9"), 3u);
}

TEST(ByteLevel, SpellsAsGpt2Does) {
  EXPECT_EQ(SpellBytes(" \n\tA"), "ĠĊĉA");
  EXPECT_EQ(SpellBytes("\xE6\xB9\x96"), "æ¹ĸ");
  EXPECT_EQ(BytesInAlphabetOrder()[0], '!');
  EXPECT_EQ(BytesInAlphabetOrder()[255], 0xAD);
}

TEST(ByteLevel, EveryByteRoundTripsAndOtherCharactersAreRefused) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(UnspellBytes(SpellBytes(all)), all);
  EXPECT_EQ(UnspellBytes("a b"), std::nullopt);
  EXPECT_EQ(UnspellBytes("湖"), std::nullopt);
  EXPECT_EQ(UnspellBytes("ń"), std::nullopt);  // U+0144, one past the last
}

TEST(Unicode, NfcComposesAndKnowsWhatIsComposed) {
  EXPECT_TRUE(IsNfc("plain"));
  EXPECT_TRUE(IsNfc("é"));
  EXPECT_FALSE(IsNfc("e\u0301"));
  EXPECT_EQ(ToNfc("e\u0301"), "é");
  EXPECT_EQ(ToNfc("\u212B"), "Å");               // Ångström sign
  EXPECT_EQ(ToNfc("\u1112\u1161\u11AB"), "한");  // Hangul jamo
}

TEST(Unicode, StripTakesAllWhiteSpace) {
  EXPECT_EQ(StripSpace(" \t\n\u3000湖 水\u00A0\x1C"), "湖 水");
  EXPECT_EQ(StripSpace(" \n"), "");
}

}  // namespace
}  // namespace tarn::engine
