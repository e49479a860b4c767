#include "engine/text/tokenizer_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "common/base/status.h"
#include "engine/text/small_tokenizer.h"

namespace tarn::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Small() {
  return json::parse(ToJson(
      {.merges = {{"a", "b"}}, .added_tokens = {{.id = 300, .content = "<s>", .special = true}}}));
}

absl::Status LoadStatus(const std::string& tokenizer, const std::string& config = "") {
  return Tokenizer::FromJson(tokenizer, config).status();
}

// Sets `pointer` to the JSON text `value`, and expects a refusal that names `part`.
struct Damage {
  const char* pointer;
  const char* value;
  absl::StatusCode code;
  const char* part;
};

class DamagedFile : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedFile, IsRefusedByName) {
  json root = Small();
  root[json::json_pointer(GetParam().pointer)] = json::parse(GetParam().value);
  const absl::Status status = LoadStatus(root.dump());
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(Message(status), HasSubstr(GetParam().part));
}

constexpr auto kBad = absl::StatusCode::kInvalidArgument;
constexpr auto kUnsupported = absl::StatusCode::kFailedPrecondition;

INSTANTIATE_TEST_SUITE_P(
    Malformed, DamagedFile,
    ::testing::Values(
        Damage{"/model", "null", kBad, "model"}, Damage{"/model/type", "7", kBad, "model.type"},
        Damage{"/model/vocab", "[]", kBad, "model.vocab"},
        Damage{"/model/vocab/a", "-1", kBad, "model.vocab[\"a\"]"},
        Damage{"/model/vocab/a", "1.5", kBad, "model.vocab[\"a\"]"},
        Damage{"/model/vocab/a", "99999999999", kBad, "16777215"},
        Damage{"/model/vocab/zz", "3", kBad, "id 3 is both"},
        Damage{"/model/vocab", "{}", kBad, "byte 0"},
        Damage{"/model/merges", "{}", kBad, "model.merges"},
        Damage{"/model/merges/0", "\"ab\"", kBad, "model.merges[0]"},
        Damage{"/model/merges/0", "\"a b c\"", kBad, "model.merges[0]"},
        Damage{"/model/merges/0", "[\"a\"]", kBad, "model.merges[0]"},
        Damage{"/model/merges/0", "[\"a\", \"z\"]", kBad, "\"az\""},
        Damage{"/model/merges/0", "[\"a\", \"湖\"]", kBad, "湖"},
        Damage{"/model/ignore_merges", "1", kBad, "ignore_merges"},
        Damage{"/added_tokens", "3", kBad, "added_tokens"},
        Damage{"/added_tokens/0/id", "\"x\"", kBad, "added_tokens[0].id"},
        Damage{"/added_tokens/0/content", "\"\"", kBad, "added_tokens[0].content"},
        Damage{"/added_tokens/0/special", "\"no\"", kBad, "added_tokens[0].special"},
        Damage{"/added_tokens/0/id", "256", kBad, "id 256 is both"},
        Damage{"/pre_tokenizer/pretokenizers", "3", kBad, "pre_tokenizer.pretokenizers"},
        Damage{"/pre_tokenizer/pretokenizers/0", "3", kBad, "pre_tokenizer.type"},
        Damage{"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(\"", kBad, "at byte 1"},
        Damage{"/post_processor", R"({"type": "TemplateProcessing", "single": []})", kBad,
               "Sequence A"},
        Damage{"/post_processor",
               R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]})", kBad,
               "\"x\""},
        Damage{"/post_processor",
               R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}},
                   {"Sequence": {"id": "A"}}], "special_tokens": {"x": {"ids": [299]}}})",
               kBad, "id 299"}));

INSTANTIATE_TEST_SUITE_P(
    Unsupported, DamagedFile,
    ::testing::Values(
        Damage{"/model/type", "\"WordPiece\"", kUnsupported, "WordPiece"},
        Damage{"/model/byte_fallback", "true", kUnsupported, "byte_fallback"},
        Damage{"/model/dropout", "0.1", kUnsupported, "dropout"},
        Damage{"/model/end_of_word_suffix", "\"</w>\"", kUnsupported, "end_of_word_suffix"},
        Damage{"/normalizer", R"({"type": "Lowercase"})", kUnsupported, "Lowercase"},
        Damage{"/pre_tokenizer", "null", kUnsupported, "ByteLevel"},
        Damage{"/pre_tokenizer", R"({"type": "Metaspace"})", kUnsupported, "Metaspace"},
        Damage{"/pre_tokenizer", R"({"type": "ByteLevel"})", kUnsupported, "add_prefix_space"},
        Damage{"/pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", kUnsupported, "Removed"},
        Damage{"/pre_tokenizer/pretokenizers/0/invert", "true", kUnsupported, "invert"},
        Damage{"/pre_tokenizer/pretokenizers/0/pattern/String", "\" \"", kUnsupported, "String"},
        Damage{"/post_processor", R"({"type": "BertProcessing"})", kUnsupported, "BertProcessing"},
        Damage{"/decoder", "null", kUnsupported, "decoder"},
        Damage{"/decoder", R"({"type": "Metaspace"})", kUnsupported, "Metaspace"}));

TEST(TokenizerFile, TextThatIsNoJsonObjectIsRefused) {
  for (const char* text : {"", "{", "[]", "null", "\xFF", "{\"a\": \"\xFF\"}"}) {
    EXPECT_EQ(LoadStatus(text).code(), kBad);
  }
  EXPECT_EQ(LoadStatus(Small().dump(), "[]").code(), kBad);
  EXPECT_THAT(Message(LoadStatus(Small().dump(), R"({"eos_token": 3})")), HasSubstr("eos_token"));
}

TEST(TokenizerFile, MergeThatMakesASpecialTokenIsRefused) {
  const auto status = LoadStatus(ToJson(
      {.merges = {{"a", "b"}}, .added_tokens = {{.id = 256, .content = "ab", .special = true}}}));
  EXPECT_THAT(Message(status), HasSubstr("no text token"));
}

TEST(TokenizerFile, CutOrScrambledFilesNeverCrash) {
  const std::string whole = Small().dump();
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    EXPECT_FALSE(LoadStatus(whole.substr(0, random() % whole.size())).ok());
    std::string scrambled = whole;
    for (int n = 0; n < 3; ++n) scrambled[random() % whole.size()] = "{}[]\",:0a"[random() % 9];
    const auto loaded = Tokenizer::FromJson(scrambled, "");
    if (loaded.ok()) (*loaded)->Encode("abc <s>", {.parse_special = true});
  }
}

TEST(TokenizerFile, ByteLevelAloneSplitsAsGpt2) {
  json root = Small();
  root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  root["model"]["vocab"]["Ġ1"] = 400;
  root["model"]["merges"].push_back("Ġ 1");
  const auto tokenizer = Tokenizer::FromJson(root.dump(), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode(" 1 ab")[0], 400);
}

TEST(TokenizerFile, NamesMayBeObjects) {
  const auto tokenizer = Tokenizer::FromJson(
      Small().dump(), R"({"eos_token": {"content": "<s>"}, "bos_token": null, "pad_token": "?"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos(), 300);
  EXPECT_EQ((*tokenizer)->bos(), std::nullopt);
  EXPECT_EQ((*tokenizer)->IdOf((*tokenizer)->TokenBytes(*(*tokenizer)->pad())),
            (*tokenizer)->pad());
}

TEST(TokenizerFile, TemplateAddsAroundTheText) {
  json root = Small();
  root["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel"},
      {"type": "TemplateProcessing",
       "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}],
       "special_tokens": {"<s>": {"ids": [300]}}}]})");
  const auto tokenizer = Tokenizer::FromJson(root.dump(), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("ab"), (std::vector<TokenId>{256, 300}));
}

TEST(TokenizerFile, LoadNamesTheMissingFile) {
  const auto loaded = Tokenizer::Load(::testing::TempDir() + "/nothing_here");
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(Message(loaded.status()), HasSubstr("tokenizer.json"));
}

TEST(TokenizerFile, LoadsADirectoryWithoutConfig) {
  const auto directory = std::filesystem::path(::testing::TempDir()) / "no_config";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "tokenizer.json") << Small().dump();
  const auto loaded = Tokenizer::Load(directory);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->eos(), std::nullopt);
}

}  // namespace
}  // namespace tarn::engine
