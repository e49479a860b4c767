#pragma once

// Reads a Hugging Face `tokenizer.json` (and `tokenizer_config.json`) into plain values.
//
// Understands byte-level BPE: what Qwen 2 and 3, Llama 3 and GPT-2 use. Anything else in a file is
// refused by name instead of being ignored, since a component left out gives other tokens without
// any sign of it. Pure functions of their text; safe on hostile input.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"

namespace tarn::engine {

// Ids lie below this, so that a damaged file cannot ask for terabytes of table.
inline constexpr TokenId kMaxTokenIds = 1 << 24;

// A token that is found in the text before BPE sees it.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;      // control, not text: matched only where the caller allows it
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // swallows the white space behind it
  bool normalized = false;   // looked for after normalisation
};

struct TokenizerSpec {
  std::vector<std::pair<std::string, TokenId>> vocab;       // spelled in the byte-level alphabet
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  bool ignore_merges = false;  // a pretoken that is in the vocab is taken whole
  bool nfc = false;
  std::vector<std::string> split_patterns;  // each splits what the one before left
  std::vector<AddedToken> added_tokens;
  std::vector<TokenId> prefix;                  // what add_special_tokens puts in front of a text,
  std::vector<TokenId> suffix;                  // and behind it
  std::string bos_token, eos_token, pad_token;  // empty: the file names none
};

// `config_json` may be empty: then no bos, eos or pad token is known.
// INVALID_ARGUMENT: malformed; names the field. FAILED_PRECONDITION: a component that is not
// supported; names it.
absl::StatusOr<TokenizerSpec> ParseTokenizerFiles(std::string_view tokenizer_json,
                                                  std::string_view config_json);

}  // namespace tarn::engine
