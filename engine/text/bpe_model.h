#pragma once

// Byte pair encoding of one pretoken: joins the neighbours whose merge is the best known, until
// none is left (Sennrich et al., 2016, over bytes as in GPT-2).
//
// Immutable and thread-safe. A pretoken of n bytes takes O(n log n), so one run of 200 KB without a
// space is as good as prose.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/tokenizer_file.h"

namespace tarn::engine {

class BpeModel {
 public:
  // INVALID_ARGUMENT: a byte has no token, a merge names a token that the vocab lacks, or a merge
  // makes a special token: a user's text must never become one.
  static absl::StatusOr<BpeModel> Create(const TokenizerSpec& spec);

  // Appends the tokens of `pretoken` (any bytes) to `tokens`.
  void Encode(std::string_view pretoken, std::vector<TokenId>& tokens) const;

 private:
  struct Merge {
    int32_t rank = 0;  // smaller is better
    TokenId result = 0;
  };
  struct Candidate;
  struct Symbol;

  static uint64_t PairKey(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* Find(TokenId left, TokenId right) const {
    const auto it = merges_.find(PairKey(left, right));
    return it == merges_.end() ? nullptr : &it->second;
  }
  void EncodeShort(std::string_view pretoken, std::vector<TokenId>& tokens) const;
  void EncodeLong(std::string_view pretoken, std::vector<TokenId>& tokens) const;

  std::array<TokenId, 256> byte_tokens_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;
  // Raw bytes of each token; empty unless the file says ignore_merges.
  absl::flat_hash_map<std::string, TokenId> whole_;
};

}  // namespace tarn::engine
