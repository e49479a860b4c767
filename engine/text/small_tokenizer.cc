#include "engine/text/small_tokenizer.h"

#include <glog/logging.h>

#include <nlohmann/json.hpp>

#include "engine/text/byte_level.h"

namespace tarn::engine {
namespace {

using nlohmann::json;

json VocabOf(const SmallTokenizer& tokenizer) {
  json vocab = json::object();
  const auto add = [&](const std::string& bytes) {
    const std::string spelled = SpellBytes(bytes);
    if (!vocab.contains(spelled)) vocab[spelled] = vocab.size();
  };
  for (const uint8_t byte : BytesInAlphabetOrder()) add(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : tokenizer.merges) add(left + right);
  for (const std::string& word : tokenizer.words) add(word);
  return vocab;
}

json MergesOf(const SmallTokenizer& tokenizer) {
  json merges = json::array();
  for (const auto& [left, right] : tokenizer.merges) {
    const std::string a = SpellBytes(left), b = SpellBytes(right);
    merges.push_back(tokenizer.merges_as_pairs ? json::array({a, b}) : json(a + " " + b));
  }
  return merges;
}

}  // namespace

std::string ToJson(const SmallTokenizer& tokenizer) {
  json root;
  root["added_tokens"] = json::array();
  for (const AddedToken& token : tokenizer.added_tokens) {
    json entry;
    entry["id"] = token.id;
    entry["content"] = token.content;
    entry["special"] = token.special;
    entry["single_word"] = token.single_word;
    entry["lstrip"] = token.lstrip;
    entry["rstrip"] = token.rstrip;
    entry["normalized"] = token.normalized;
    root["added_tokens"].push_back(entry);
  }
  if (tokenizer.nfc) root["normalizer"]["type"] = "NFC";
  json split;
  split["type"] = "Split";
  split["pattern"]["Regex"] = tokenizer.pattern;
  split["behavior"] = "Isolated";
  json byte_level;
  byte_level["type"] = "ByteLevel";
  byte_level["add_prefix_space"] = false;
  byte_level["use_regex"] = false;
  root["pre_tokenizer"]["type"] = "Sequence";
  root["pre_tokenizer"]["pretokenizers"] = json::array({split, byte_level});
  root["decoder"] = byte_level;
  root["model"]["type"] = "BPE";
  root["model"]["ignore_merges"] = tokenizer.ignore_merges;
  root["model"]["vocab"] = VocabOf(tokenizer);
  root["model"]["merges"] = MergesOf(tokenizer);
  return root.dump();
}

std::unique_ptr<Tokenizer> Make(const SmallTokenizer& tokenizer) {
  auto made = Tokenizer::FromJson(ToJson(tokenizer), "");
  CHECK(made.ok()) << made.status();
  return *std::move(made);
}

std::shared_ptr<const Tokenizer> DemoTokenizer(ChatForm form) {
  const auto make = [](ChatForm which) -> std::shared_ptr<const Tokenizer> {
    const auto trained = TrainBpe(DemoCorpus(), {.form = which});
    CHECK(trained.ok()) << trained.status();
    auto loaded = Tokenizer::FromJson(TokenizerJson(*trained), TokenizerConfigJson(*trained));
    CHECK(loaded.ok()) << loaded.status();
    return *std::move(loaded);
  };
  static const auto chat_ml = make(ChatForm::kChatMl);
  static const auto llama3 = make(ChatForm::kLlama3);
  return form == ChatForm::kChatMl ? chat_ml : llama3;
}

std::vector<std::string> Pieces(const Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  std::vector<std::string> pieces;
  for (const TokenId token : tokens) pieces.emplace_back(tokenizer.TokenBytes(token));
  return pieces;
}

}  // namespace tarn::engine
