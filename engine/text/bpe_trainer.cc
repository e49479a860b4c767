#include "engine/text/bpe_trainer.h"

#include <array>
#include <cstdint>
#include <map>
#include <queue>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/byte_level.h"
#include "engine/text/chat_forms.h"
#include "engine/text/regex_splitter.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

using Pair = std::pair<TokenId, TokenId>;

struct Word {
  std::vector<TokenId> tokens;
  int64_t count = 0;
};

// A pair's count when it was queued; the most frequent is first, then the smaller ids.
struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  Trainer(std::vector<Word> words, std::vector<std::string> vocab)
      : words_(std::move(words)), vocab_(std::move(vocab)) {
    for (size_t i = 0; i < words_.size(); ++i) Count(i, +1);
    for (const auto& [pair, count] : counts_) queue_.push({count, pair});
  }

  // Joins the most frequent pair; false if none has `min_count`.
  bool Step(int64_t min_count) {
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      if (counts_[best.pair] != best.count) continue;  // A newer entry has its count.
      if (best.count < min_count) return false;
      Join(best.pair);
      return true;
    }
    return false;
  }

  const std::vector<std::string>& vocab() const { return vocab_; }
  const std::vector<std::pair<std::string, std::string>>& merges() const { return merges_; }

 private:
  // Adds (or takes away) the pairs of a word.
  void Count(size_t word_index, int sign) {
    const Word& word = words_[word_index];
    for (size_t i = 0; i + 1 < word.tokens.size(); ++i) {
      const Pair pair(word.tokens[i], word.tokens[i + 1]);
      counts_[pair] += sign * word.count;
      if (sign > 0) words_of_[pair].insert(word_index);
      changed_.insert(pair);
    }
  }

  TokenId IdOf(const std::string& spelled) {
    const auto [it, is_new] = ids_.try_emplace(spelled, static_cast<TokenId>(vocab_.size()));
    if (is_new) vocab_.push_back(spelled);
    return it->second;
  }

  void Join(Pair pair) {
    merges_.emplace_back(vocab_[pair.first], vocab_[pair.second]);
    const TokenId joined = IdOf(vocab_[pair.first] + vocab_[pair.second]);
    changed_.clear();
    const std::set<size_t> affected = std::move(words_of_[pair]);
    words_of_.erase(pair);
    for (const size_t word_index : affected) {
      Count(word_index, -1);
      Replace(words_[word_index].tokens, pair, joined);
      Count(word_index, +1);
    }
    for (const Pair& other : changed_) queue_.push({counts_[other], other});
  }

  static void Replace(std::vector<TokenId>& tokens, Pair pair, TokenId joined) {
    size_t kept = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool match =
          i + 1 < tokens.size() && tokens[i] == pair.first && tokens[i + 1] == pair.second;
      tokens[kept++] = match ? joined : tokens[i];
      i += match;
    }
    tokens.resize(kept);
  }

  std::vector<Word> words_;
  std::vector<std::string> vocab_;
  std::vector<std::pair<std::string, std::string>> merges_;
  absl::flat_hash_map<Pair, int64_t> counts_;
  absl::flat_hash_map<Pair, std::set<size_t>> words_of_;  // words that have, or had, the pair
  std::set<Pair> changed_;                                // since the last merge
  absl::flat_hash_map<std::string, TokenId> ids_;         // of joined tokens
  std::priority_queue<Candidate> queue_;
};

absl::StatusOr<std::vector<Word>> CountWords(std::string_view corpus, ChatForm form) {
  ASSIGN_OR_RETURN(const RegexSplitter splitter, RegexSplitter::Compile(SplitPattern(form)));
  std::vector<std::string_view> pieces;
  splitter.Split(corpus, pieces);
  std::map<std::string_view, int64_t> counts;
  for (const std::string_view piece : pieces) ++counts[piece];

  std::array<TokenId, 256> token_of{};
  const auto order = BytesInAlphabetOrder();
  for (int id = 0; id < 256; ++id) token_of[order[id]] = id;
  std::vector<Word> words;
  for (const auto& [text, count] : counts) {
    Word& word = words.emplace_back(Word{{}, count});
    for (const char c : text) word.tokens.push_back(token_of[static_cast<uint8_t>(c)]);
  }
  return words;
}

std::vector<std::string> ByteVocab() {
  std::vector<std::string> vocab;
  for (const uint8_t byte : BytesInAlphabetOrder()) {
    vocab.push_back(SpellBytes(std::string(1, static_cast<char>(byte))));
  }
  return vocab;
}

}  // namespace

absl::StatusOr<TrainedTokenizer> TrainBpe(std::string_view corpus, const BpeTrainOptions& options) {
  if (ValidUtf8Prefix(corpus) != corpus.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("corpus is not UTF-8 at byte ", ValidUtf8Prefix(corpus)));
  }
  TrainedTokenizer result{.form = options.form, .special_tokens = SpecialTokens(options.form)};
  const int text_size = options.vocab_size - static_cast<int>(result.special_tokens.size());
  if (text_size < 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("vocab_size ", options.vocab_size, " has no room for 256 bytes and ",
                     result.special_tokens.size(), " special tokens"));
  }
  const std::string normalized = UsesNfc(options.form) ? ToNfc(corpus) : std::string(corpus);
  ASSIGN_OR_RETURN(std::vector<Word> words, CountWords(normalized, options.form));
  Trainer trainer(std::move(words), ByteVocab());
  while (static_cast<int>(trainer.vocab().size()) < text_size &&
         trainer.Step(options.min_pair_count)) {
  }
  result.vocab = trainer.vocab();
  result.merges = trainer.merges();
  while (result.vocab_size() < options.vocab_size) {
    result.special_tokens.push_back(absl::StrCat("<|reserved_", result.reserved_count++, "|>"));
  }
  return result;
}

}  // namespace tarn::engine
