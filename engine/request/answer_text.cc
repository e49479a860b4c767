#include "engine/request/answer_text.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"

namespace tarn::engine {

absl::StatusOr<AnswerText> AnswerText::Create(const ResolvedRequest& request,
                                              const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(StopMatcher stop, StopMatcher::Create(request.stop, request.include_stop));
  return AnswerText(request, StreamDetokenizer(tokenizer, request.skip_special), std::move(stop));
}

AnswerText::AnswerText(const ResolvedRequest& request, StreamDetokenizer detokenizer,
                       StopMatcher stop)
    : silent_(request.include_stop ? std::vector<TokenId>() : request.end_tokens),
      detokenizer_(std::move(detokenizer)),
      stop_(std::move(stop)) {}

std::string AnswerText::Push(TokenId token) {
  if (std::find(silent_.begin(), silent_.end(), token) != silent_.end()) return "";
  return stop_.Push(detokenizer_.Push(token));
}

std::string AnswerText::Flush() {
  std::string text = stop_.Push(detokenizer_.Flush());
  return text + stop_.Flush();
}

}  // namespace tarn::engine
