#include "engine/text/detokenizer.h"

#include <utility>

#include "engine/text/utf8.h"

namespace tarn::engine {

std::string StreamDetokenizer::Push(TokenId token) {
  if (skip_special_ && tokenizer_.IsSpecial(token)) return "";
  waiting_.append(tokenizer_.TokenBytes(token));
  const size_t complete = waiting_.size() - IncompleteUtf8Suffix(waiting_);
  std::string text = LossyUtf8(std::string_view(waiting_).substr(0, complete));
  waiting_.erase(0, complete);
  return text;
}

std::string StreamDetokenizer::Flush() { return LossyUtf8(std::exchange(waiting_, "")); }

}  // namespace tarn::engine
