// Compares with a second implementation that shares nothing but the merges: a splitter written by
// hand for ASCII, and BPE that scans the whole list of merges for the best pair.

#include <gtest/gtest.h>

#include <cctype>
#include <map>
#include <random>

#include "engine/text/byte_level.h"
#include "engine/text/small_tokenizer.h"

namespace tarn::engine {
namespace {

bool Letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }
bool Digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }
bool Space(char c) { return std::isspace(static_cast<unsigned char>(c)); }
bool Newline(char c) { return c == '\r' || c == '\n'; }
bool Other(char c) { return !Letter(c) && !Digit(c) && !Space(c); }

// The length of the pretoken at the front of `s`, for the expressions of Qwen (max_digits 1) and
// Llama 3 (3). One paragraph an alternative, in their order.
size_t ReferencePretoken(const std::string& s, size_t max_digits) {
  const auto run = [&](size_t from, auto&& is) {
    while (from < s.size() && is(s[from])) ++from;
    return from;
  };
  for (const char* suffix : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    const size_t length = std::string(suffix).size();
    bool match = s.size() >= length;
    for (size_t i = 0; match && i < length; ++i) match = std::tolower(s[i]) == suffix[i];
    if (match) return length;
  }
  const size_t lead = !Newline(s[0]) && !Letter(s[0]) && !Digit(s[0]) ? 1 : 0;
  if (const size_t end = run(lead, Letter); end > lead) return end;

  if (Digit(s[0])) return std::min(run(0, Digit), max_digits);

  const size_t blank = s[0] == ' ' ? 1 : 0;
  if (const size_t end = run(blank, Other); end > blank) return run(end, Newline);

  const size_t spaces = run(0, Space);
  for (size_t end = spaces; end > 0; --end) {
    if (Newline(s[end - 1])) return end;
  }
  if (spaces == s.size() || spaces == 1) return spaces;
  return spaces - 1;
}

class Reference {
 public:
  explicit Reference(const TrainedTokenizer& trained)
      : merges_(trained.merges), max_digits_(trained.form == ChatForm::kLlama3 ? 3 : 1) {
    for (size_t id = 0; id < trained.vocab.size(); ++id) {
      ids_[trained.vocab[id]] = static_cast<TokenId>(id);
    }
    for (size_t rank = 0; rank < merges_.size(); ++rank) ranks_.emplace(merges_[rank], rank);
  }

  std::vector<TokenId> Encode(std::string text) const {
    std::vector<TokenId> tokens;
    while (!text.empty()) {
      const size_t length = ReferencePretoken(text, max_digits_);
      for (const std::string& symbol : Merge(text.substr(0, length))) {
        tokens.push_back(ids_.at(symbol));
      }
      text.erase(0, length);
    }
    return tokens;
  }

 private:
  std::vector<std::string> Merge(const std::string& pretoken) const {
    std::vector<std::string> symbols;
    for (const char c : pretoken) symbols.push_back(SpellBytes(std::string(1, c)));
    while (true) {
      size_t best = 0, best_rank = merges_.size();
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto it = ranks_.find({symbols[i], symbols[i + 1]});
        if (it == ranks_.end() || it->second >= best_rank) continue;
        best = i, best_rank = it->second;
      }
      if (best_rank == merges_.size()) return symbols;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + best + 1);
    }
  }

  std::vector<std::pair<std::string, std::string>> merges_;
  size_t max_digits_;
  std::map<std::string, TokenId> ids_;
  std::map<std::pair<std::string, std::string>, size_t> ranks_;
};

std::string RandomAscii(std::mt19937& random) {
  static constexpr std::string_view kParts[] = {
      " ",    " ", "  ",      "\n",  "\r\n", "\t", "the", "The",  " lake", "'s",    "'LL", "'",
      "2026", "1", "machine", "ing", ".",    ",",  "!=",  "\n\n", "    ",  "water", "_",   "x"};
  std::string text;
  const int count = random() % 60;
  for (int i = 0; i < count; ++i) {
    if (random() % 5 == 0) {
      text.push_back(static_cast<char>(random() % 127 + 1));
    } else {
      text.append(kParts[random() % std::size(kParts)]);
    }
  }
  return text;
}

class AgainstReference : public ::testing::TestWithParam<ChatForm> {};

TEST_P(AgainstReference, SameTokensOnRandomText) {
  const auto trained = TrainBpe(DemoCorpus(), {.form = GetParam()});
  ASSERT_TRUE(trained.ok());
  const Reference reference(*trained);
  const auto tokenizer = DemoTokenizer(GetParam());
  std::mt19937 random(11);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomAscii(random);
    ASSERT_EQ(tokenizer->Encode(text, {.add_special_tokens = false}), reference.Encode(text))
        << text;
  }
}

// Over 48 bytes another algorithm takes over.
TEST_P(AgainstReference, SameTokensOnLongPretokens) {
  const auto trained = TrainBpe(DemoCorpus(), {.form = GetParam()});
  ASSERT_TRUE(trained.ok());
  const Reference reference(*trained);
  const auto tokenizer = DemoTokenizer(GetParam());
  std::mt19937 random(12);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    const size_t length = 40 + random() % 100;
    while (text.size() < length) text.push_back("etaoinshr"[random() % 9]);
    ASSERT_EQ(tokenizer->Encode(text, {.add_special_tokens = false}), reference.Encode(text))
        << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, AgainstReference,
                         ::testing::Values(ChatForm::kChatMl, ChatForm::kLlama3));

}  // namespace
}  // namespace tarn::engine
