#include "router/frontend/openai/error.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "common/base/status.h"
#include "common/rpc/status.h"
#include "router/frontend/frontend.h"

namespace tarn::router::openai {
namespace {

struct Kind {
  int status;
  const char* type;
  const char* code;
};

Kind KindOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return {400, "invalid_request_error", ""};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error", "model_not_found"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", "rate_limit_exceeded"};
    case absl::StatusCode::kCancelled:
      return {499, "request_cancelled", "cancelled"};
    case absl::StatusCode::kUnavailable:
      return {503, "service_unavailable_error", "unavailable"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "timeout_error", "deadline_exceeded"};
    default:
      return {500, "server_error", "internal_error"};
  }
}

// What the HTTP layer refuses by itself.
const char* TypeOf(int status) {
  if (status == 408 || status == 504) return "timeout_error";
  if (status == 429) return "rate_limit_error";
  if (status == 503) return "service_unavailable_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

bool IsFieldCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '[' ||
         c == ']';
}

// "top_p" of "top_p: is 2; ..." and of the sampler's "sampling: top_p is 2; ...".
std::string ParamOf(const std::string& message, bool of_sampler) {
  const auto end = std::find_if_not(message.begin(), message.end(), IsFieldCharacter);
  if (end == message.begin() || end == message.end()) return "";
  return *end == ':' || of_sampler ? std::string(message.begin(), end) : "";
}

HttpHeaders RetryHeaders(const absl::Status& status) {
  const auto delay = RetryAfter(status);
  if (!delay.has_value()) return {};
  const int64_t ms = absl::ToInt64Milliseconds(*delay);
  // The standard's header has whole seconds; OpenAI's clients read the finer one first.
  return {{"Retry-After", std::to_string(std::max<int64_t>((ms + 999) / 1000, 1))},
          {"retry-after-ms", std::to_string(ms)}};
}

}  // namespace

ApiError ErrorOf(const absl::Status& status) {
  constexpr char kSampler[] = "sampling: ";
  const Kind kind = KindOf(status.code());
  ApiError error = {.status = kind.status,
                    .message = Message(status),
                    .type = kind.type,
                    .code = kind.code,
                    .headers = RetryHeaders(status)};
  if (error.status == 404) error.param = "model";
  if (error.status != 400) return error;
  const bool of_sampler = error.message.rfind(kSampler, 0) == 0;
  if (of_sampler) error.message.erase(0, sizeof(kSampler) - 1);
  error.param = ParamOf(error.message, of_sampler);
  return error;
}

OrderedJson ToJson(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
  };
  return {{"error",
           {{"message", error.message},
            {"type", error.type},
            {"param", or_null(error.param)},
            {"code", or_null(error.code)}}}};
}

void ReplyError(HttpResponder& responder, const absl::Status& status) {
  ApiError error = ErrorOf(status);
  std::string body = Dump(ToJson(error));
  error.headers.emplace_back("Content-Type", "application/json");
  responder.Reply(error.status, std::move(error.headers), std::move(body));
}

}  // namespace tarn::router::openai

namespace tarn::router {

std::string OpenAiErrorBody(int status, const std::string& message) {
  return openai::Dump(
      openai::ToJson({.status = status, .message = message, .type = openai::TypeOf(status)}));
}

}  // namespace tarn::router
