#pragma once

// Text to tokens and back, exactly as the model was trained: byte-level BPE read from a Hugging
// Face directory (Qwen 2 and 3, Llama 3, GPT-2).
//
// Immutable after Load, apart from an internal cache: every method may be called from any thread at
// once. Nothing but Load blocks.
//
// Any bytes can be encoded. Bytes that are not UTF-8 become tokens of single bytes or of runs of
// them, and Decode(Encode(x)) == x for every x, with two exceptions that the tokenizer's file asks
// for: NFC normalisation, where the result is NFC(x), and added tokens that swallow white space.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/pretoken_cache.h"
#include "engine/text/regex_splitter.h"
#include "engine/text/tokenizer_file.h"

namespace tarn::engine {

struct EncodeOptions {
  // Puts what the file's post-processor names around the text (Llama 3: <|begin_of_text|>).
  bool add_special_tokens = true;
  // Whether "<|im_end|>" in the text becomes that token. Leave false for what users write, or they
  // can forge a turn of the conversation. Added tokens that the file does not mark special, such as
  // Qwen3's <think>, are matched either way.
  bool parse_special = false;
};

class Tokenizer {
 public:
  // Reads `directory`/tokenizer.json and, where present, tokenizer_config.json.
  // NOT_FOUND, INVALID_ARGUMENT (malformed), FAILED_PRECONDITION (a component that is not
  // supported; names it). Takes about half a second for a vocab of 150,000 tokens.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& directory);

  // The same from the files' contents; `config_json` may be empty.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json,
                                                             std::string_view config_json);

  // Time is O(n log n) in the worst case; prose takes about 30 ms for 1 MB.
  std::vector<TokenId> Encode(std::string_view text, EncodeOptions options = {}) const;

  // The tokens' bytes, which need not be valid UTF-8: a character may be cut by the list's end. See
  // StreamDetokenizer for text. Ids without a token add nothing.
  std::string Decode(std::span<const TokenId> tokens, bool skip_special = false) const;

  // A token's bytes; empty for an id without a token (models often pad their vocab). The view lives
  // as long as the tokenizer.
  std::string_view TokenBytes(TokenId token) const;

  // One more than the largest id.
  int vocab_size() const { return static_cast<int>(bytes_.size()); }

  bool IsSpecial(TokenId token) const;

  // By an added token's content, or as the vocab spells it ("Ġthe").
  std::optional<TokenId> IdOf(std::string_view name) const;

  // As tokenizer_config.json names them.
  std::optional<TokenId> bos() const { return bos_; }
  std::optional<TokenId> eos() const { return eos_; }
  std::optional<TokenId> pad() const { return pad_; }

 private:
  Tokenizer(TokenizerSpec spec, BpeModel model, std::vector<RegexSplitter> splitters);

  static absl::Status CheckIds(const TokenizerSpec& spec);
  void IndexTokens(const TokenizerSpec& spec);
  void EncodeText(std::string_view text, bool parse_special, std::vector<TokenId>& tokens) const;
  void EncodeNormalized(std::string_view text, bool parse_special,
                        std::vector<TokenId>& tokens) const;
  void EncodePretokens(std::string_view text, std::vector<TokenId>& tokens) const;
  void EncodePretoken(std::string_view pretoken, std::vector<TokenId>& tokens) const;

  const bool nfc_;
  const std::vector<TokenId> prefix_;
  const std::vector<TokenId> suffix_;
  const BpeModel model_;
  const std::vector<RegexSplitter> splitters_;
  const AddedTokenMatcher raw_added_;         // looked for before normalisation,
  const AddedTokenMatcher normalized_added_;  // and after it
  std::vector<std::string> bytes_;            // by id
  std::vector<bool> special_;                 // by id
  absl::flat_hash_map<std::string, TokenId> ids_;
  std::optional<TokenId> bos_, eos_, pad_;
  const PretokenCache cache_;
};

}  // namespace tarn::engine
