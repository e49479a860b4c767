#pragma once

// Finds added tokens ("<|im_end|>") in a text, before BPE sees it.
//
// At each place the longest token that fits wins. White space is swallowed and word boundaries are
// minded as the token's flags say; the rules are those of Hugging Face's added vocabulary.
// Immutable and thread-safe.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/tokenizer_file.h"

namespace tarn::engine {

// A stretch of text: an added token, or what lies between two of them.
struct TextPiece {
  std::string_view text;         // what it covers
  std::optional<TokenId> token;  // nothing: ordinary text
};

class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // The pieces of `text`, in order; none is empty. Unless `parse_special`, tokens marked special
  // are ordinary text. Views into `text`.
  std::vector<TextPiece> Split(std::string_view text, bool parse_special) const;

 private:
  static constexpr int32_t kNone = -1;

  // The longest token at the front of `text`, or null.
  const AddedToken* Longest(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie over bytes: (node << 8 | byte) to the next node; node 0 is the root.
  absl::flat_hash_map<uint64_t, int32_t> edges_;
  std::vector<int32_t> token_at_;  // by node: an index of tokens_, or kNone
  std::array<bool, 256> starts_{};
};

}  // namespace tarn::engine
