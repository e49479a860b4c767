#include "engine/text/bpe_model.h"

#include <limits>
#include <optional>
#include <queue>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/byte_level.h"

namespace tarn::engine {
namespace {

// Up to here a scan over all pairs for each merge beats the queue.
constexpr size_t kShortBytes = 48;
constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();

using Vocab = absl::flat_hash_map<std::string, TokenId>;

// What BPE may produce. A special token that is also listed in the vocab is not text.
Vocab TextVocab(const TokenizerSpec& spec) {
  absl::flat_hash_set<std::string> special;
  for (const AddedToken& token : spec.added_tokens) {
    if (token.special) special.insert(token.content);
  }
  Vocab vocab;
  vocab.reserve(spec.vocab.size());
  for (const auto& [spelled, id] : spec.vocab) {
    if (!special.contains(spelled)) vocab.emplace(spelled, id);
  }
  return vocab;
}

absl::StatusOr<TokenId> Require(const Vocab& vocab, const std::string& spelled, size_t merge) {
  const auto it = vocab.find(spelled);
  if (it != vocab.end()) return it->second;
  return absl::InvalidArgumentError(absl::StrCat("tokenizer file: model.merges[", merge,
                                                 "] needs \"", spelled,
                                                 "\", which is no text token of the vocab"));
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Create(const TokenizerSpec& spec) {
  const Vocab vocab = TextVocab(spec);
  BpeModel model;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelled = SpellBytes(std::string(1, static_cast<char>(byte)));
    const auto it = vocab.find(spelled);
    if (it == vocab.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tokenizer file: model.vocab lacks \"",
                                                     spelled, "\", which stands for byte ", byte));
    }
    model.byte_tokens_[byte] = it->second;
  }
  model.merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    ASSIGN_OR_RETURN(const TokenId left_id, Require(vocab, left, rank));
    ASSIGN_OR_RETURN(const TokenId right_id, Require(vocab, right, rank));
    ASSIGN_OR_RETURN(const TokenId result, Require(vocab, left + right, rank));
    model.merges_[PairKey(left_id, right_id)] = {static_cast<int32_t>(rank), result};
  }
  if (spec.ignore_merges) {
    for (const auto& [spelled, id] : vocab) {
      if (auto bytes = UnspellBytes(spelled)) model.whole_.emplace(*std::move(bytes), id);
    }
  }
  return model;
}

void BpeModel::Encode(std::string_view pretoken, std::vector<TokenId>& tokens) const {
  if (!whole_.empty()) {
    const auto it = whole_.find(std::string(pretoken));
    if (it != whole_.end()) {
      tokens.push_back(it->second);
      return;
    }
  }
  if (pretoken.size() <= kShortBytes) {
    EncodeShort(pretoken, tokens);
  } else {
    EncodeLong(pretoken, tokens);
  }
}

void BpeModel::EncodeShort(std::string_view pretoken, std::vector<TokenId>& tokens) const {
  struct Slot {
    TokenId token;
    Merge next = {kNoMerge, 0};  // with the slot behind it
  };
  std::array<Slot, kShortBytes> slots;
  size_t count = pretoken.size();
  const auto look_up = [&](size_t i) {
    const Merge* merge = i + 1 < count ? Find(slots[i].token, slots[i + 1].token) : nullptr;
    slots[i].next = merge ? *merge : Merge{kNoMerge, 0};
  };
  for (size_t i = 0; i < count; ++i) {
    slots[i].token = byte_tokens_[static_cast<uint8_t>(pretoken[i])];
  }
  for (size_t i = 0; i < count; ++i) look_up(i);
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
      if (slots[i].next.rank < slots[best].next.rank) best = i;
    }
    if (count == 0 || slots[best].next.rank == kNoMerge) break;
    slots[best].token = slots[best].next.result;
    for (size_t i = best + 1; i + 1 < count; ++i) slots[i] = slots[i + 1];
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  for (size_t i = 0; i < count; ++i) tokens.push_back(slots[i].token);
}

// A token in a doubly linked list of them; indices, -1 at the ends.
struct BpeModel::Symbol {
  TokenId token;
  int32_t previous;
  int32_t next;
  bool gone = false;  // merged into the one before it
};

// A merge that was possible when it was queued. Best first: by rank, then from the left.
struct BpeModel::Candidate {
  int32_t rank;
  int32_t left;
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

void BpeModel::EncodeLong(std::string_view pretoken, std::vector<TokenId>& tokens) const {
  const auto count = static_cast<int32_t>(pretoken.size());
  std::vector<Symbol> symbols;
  symbols.reserve(pretoken.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {byte_tokens_[static_cast<uint8_t>(pretoken[i])], i - 1, i + 1 < count ? i + 1 : -1});
  }
  const auto merge_at = [&](int32_t left) -> const Merge* {
    if (left < 0 || symbols[left].gone || symbols[left].next < 0) return nullptr;
    return Find(symbols[left].token, symbols[symbols[left].next].token);
  };
  std::priority_queue<Candidate> queue;
  const auto offer = [&](int32_t left) {
    if (const Merge* merge = merge_at(left)) queue.push({merge->rank, left});
  };
  for (int32_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const Merge* merge = merge_at(best.left);
    if (merge == nullptr || merge->rank != best.rank) continue;  // One of the two has changed.
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[left.next];
    left.token = merge->result;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    offer(best.left);
    offer(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) tokens.push_back(symbols[i].token);
}

}  // namespace tarn::engine
