#pragma once

// Text from tokens that arrive one by one.
//
// A token may end inside a character. Then its last bytes, 3 at most, wait for the next tokens, so
// every piece is valid UTF-8 on its own. Bytes that cannot become a character are U+FFFD. All
// pieces together are LossyUtf8(tokenizer.Decode(all tokens)). Thread-compatible; nothing blocks.

#include <string>

#include "engine/text/tokenizer.h"

namespace tarn::engine {

class StreamDetokenizer {
 public:
  // `tokenizer` outlives this. With `skip_special`, special tokens add no text.
  explicit StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that `token` completes; may be empty.
  std::string Push(TokenId token);

  // What still waits, as U+FFFD. The next Push begins afresh.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string waiting_;  // a character's beginning
};

}  // namespace tarn::engine
