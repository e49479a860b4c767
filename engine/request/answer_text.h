#pragma once

// The text of an answer, token by token: whole characters, stop strings, special tokens left out.
// Thread-compatible; nothing blocks.

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/request/resolve.h"
#include "engine/text/detokenizer.h"
#include "engine/text/stop_strings.h"

namespace tarn::engine {

class AnswerText {
 public:
  // `tokenizer` outlives this.
  static absl::StatusOr<AnswerText> Create(const ResolvedRequest& request,
                                           const Tokenizer& tokenizer);

  // The text that is certain with this token. An end token has no text, unless the request includes
  // stop strings in the output.
  std::string Push(TokenId token);

  // A stop string was found: the answer ends with the last token pushed.
  bool stopped() const { return stop_.matched().has_value(); }

  // The end: what was held back.
  std::string Flush();

 private:
  AnswerText(const ResolvedRequest& request, StreamDetokenizer detokenizer, StopMatcher stop);

  std::vector<TokenId> silent_;
  StreamDetokenizer detokenizer_;
  StopMatcher stop_;
};

}  // namespace tarn::engine
