#pragma once

// Errors as OpenAI's clients read them:
//   {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
// Plain functions; thread-safe.

#include <string>

#include "absl/status/status.h"
#include "common/http/server.h"
#include "router/frontend/openai/json.h"

namespace tarn::router::openai {

struct ApiError {
  int status = 500;
  std::string message, type;
  std::string param, code;  // empty: null
  HttpHeaders headers;      // Retry-After, where there is a hint
};

// What a status means in HTTP. A message that begins with a field's name and ": " names the param.
ApiError ErrorOf(const absl::Status& status);

OrderedJson ToJson(const ApiError& error);

// Answers with the error of `status`.
void ReplyError(HttpResponder& responder, const absl::Status& status);

}  // namespace tarn::router::openai
