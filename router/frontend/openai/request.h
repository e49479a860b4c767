#pragma once

// The bodies of /v1/chat/completions and /v1/completions, checked for shape. Field names and
// meaning are OpenAI's, and vLLM's for what OpenAI does not have (top_k, min_p, min_tokens, ...).
// Fields that nobody knows are ignored, as both do. Fields that ask for what tarn cannot do (echo,
// best_of, tools, ...) are refused, unless they hold their neutral value.
// Plain functions; thread-safe, nothing blocks.

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "proto/inference.pb.h"
#include "router/frontend/frontend.h"
#include "router/frontend/openai/json.h"

namespace tarn::router::openai {

struct ApiRequest {
  bool chat = false;
  v1::RequestOptions options;
  bool include_usage = false;                   // stream_options.include_usage
  std::string max_tokens_field = "max_tokens";  // as the client called it

  // chat
  std::vector<engine::ChatMessage> messages;
  engine::ChatRenderOptions render;

  // else: texts, or tokens
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;

  bool logprobs() const { return options.sampling().has_logprobs(); }
};

// INVALID_ARGUMENT "field: ..." names the field. The values' ranges are checked later, by Intake.
absl::StatusOr<ApiRequest> ParseChatRequest(const Json& body, const FrontendOptions& options);
absl::StatusOr<ApiRequest> ParseCompletionRequest(const Json& body, const FrontendOptions& options);

}  // namespace tarn::router::openai
