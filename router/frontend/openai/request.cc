#include "router/frontend/openai/request.h"

#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::router::openai {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kMinInt32 = std::numeric_limits<int32_t>::min();
// What both OpenAI and vLLM take where a completion names no limit.
constexpr uint32_t kDefaultCompletionTokens = 16;
constexpr int kMaxLogprobs = 20;

// Calls `set` with the field's value if it is there.
template <typename Set>
absl::Status ReadBool(const Json& body, const char* name, Set set) {
  const Json* value = Find(body, name);
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const bool is_set, AsBool(*value, name));
  set(is_set);
  return absl::OkStatus();
}

template <typename Set>
absl::Status ReadInt(const Json& body, const char* name, int64_t low, int64_t high, Set set) {
  const Json* value = Find(body, name);
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t integer, AsInt(*value, name, low, high));
  set(integer);
  return absl::OkStatus();
}

template <typename Set>
absl::Status ReadFloat(const Json& body, const char* name, Set set) {
  const Json* value = Find(body, name);
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const float number, AsFloat(*value, name));
  set(number);
  return absl::OkStatus();
}

template <typename Set>
absl::Status ReadString(const Json& body, const char* name, Set set) {
  const Json* value = Find(body, name);
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string text, AsString(*value, name));
  set(std::move(text));
  return absl::OkStatus();
}

std::string At(const std::string& name, size_t index) {
  return absl::StrCat(name, "[", index, "]");
}

// What would change the answer if it were ignored.
absl::Status RefuseUnsupported(const Json& body) {
  struct Field {
    const char* name;
    Json neutral;
  };
  static const auto* const kFields = new std::vector<Field>{
      {"echo", false},
      {"suffix", ""},
      {"logit_bias", Json::object()},
      {"tools", Json::array()},
      {"functions", Json::array()},
      {"response_format", {{"type", "text"}}},
      {"use_beam_search", false},
      {"prompt_logprobs", nullptr},
      {"chat_template", nullptr},
      {"continue_final_message", false},
      {"guided_json", nullptr},
      {"guided_regex", nullptr},
      {"guided_choice", nullptr},
      {"guided_grammar", nullptr},
      {"structured_outputs", nullptr},
  };
  for (const auto& [name, neutral] : *kFields) {
    const Json* value = Find(body, name);
    if (value == nullptr || *value == neutral) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": is not supported; leave it out",
                     neutral.is_null() ? "" : absl::StrCat(" or give ", neutral.dump())));
  }
  const Json* best_of = Find(body, "best_of");
  const Json* n = Find(body, "n");
  if (best_of == nullptr || *best_of == (n == nullptr ? Json(1) : *n)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "best_of: is not supported; leave it out or give the value of n");
}

absl::Status ReadStop(const Json& body, v1::SamplingParams& sampling) {
  if (const Json* stop = Find(body, "stop"); stop != nullptr) {
    if (stop->is_string()) {
      sampling.add_stop(stop->get<std::string>());
    } else if (!stop->is_array()) {
      return WrongType("stop", "a string or a list of strings", *stop);
    } else {
      for (size_t i = 0; i < stop->size(); ++i) {
        ASSIGN_OR_RETURN(*sampling.add_stop(), AsString((*stop)[i], At("stop", i)));
      }
    }
  }
  const Json* ids = Find(body, "stop_token_ids");
  if (ids == nullptr) return absl::OkStatus();
  if (!ids->is_array()) return WrongType("stop_token_ids", "a list of integers", *ids);
  for (size_t i = 0; i < ids->size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t id, AsInt((*ids)[i], At("stop_token_ids", i), 0, kMaxInt32));
    sampling.add_stop_token_ids(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const Json& body, v1::SamplingParams& sampling) {
  RETURN_IF_ERROR(ReadFloat(body, "temperature", [&](float v) { sampling.set_temperature(v); }));
  RETURN_IF_ERROR(ReadFloat(body, "top_p", [&](float v) { sampling.set_top_p(v); }));
  RETURN_IF_ERROR(ReadFloat(body, "min_p", [&](float v) { sampling.set_min_p(v); }));
  RETURN_IF_ERROR(
      ReadFloat(body, "repetition_penalty", [&](float v) { sampling.set_repetition_penalty(v); }));
  RETURN_IF_ERROR(
      ReadFloat(body, "presence_penalty", [&](float v) { sampling.set_presence_penalty(v); }));
  RETURN_IF_ERROR(
      ReadFloat(body, "frequency_penalty", [&](float v) { sampling.set_frequency_penalty(v); }));
  RETURN_IF_ERROR(ReadInt(body, "top_k", -1, kMaxInt32,
                          [&](int64_t v) { sampling.set_top_k(static_cast<int32_t>(v)); }));
  RETURN_IF_ERROR(ReadInt(body, "seed", std::numeric_limits<int64_t>::min(),
                          std::numeric_limits<int64_t>::max(),
                          [&](int64_t v) { sampling.set_seed(static_cast<uint64_t>(v)); }));
  RETURN_IF_ERROR(ReadInt(body, "min_tokens", 0, kMaxInt32,
                          [&](int64_t v) { sampling.set_min_tokens(static_cast<uint32_t>(v)); }));
  RETURN_IF_ERROR(ReadBool(body, "ignore_eos", [&](bool v) { sampling.set_ignore_eos(v); }));
  RETURN_IF_ERROR(ReadBool(body, "include_stop_str_in_output",
                           [&](bool v) { sampling.set_include_stop_str_in_output(v); }));
  RETURN_IF_ERROR(
      ReadBool(body, "skip_special_tokens", [&](bool v) { sampling.set_skip_special_tokens(v); }));
  return ReadStop(body, sampling);
}

absl::Status ReadMaxTokens(const Json& body, const char* name, ApiRequest& request) {
  return ReadInt(body, name, 1, kMaxInt32, [&](int64_t v) {
    request.options.mutable_sampling()->set_max_tokens(static_cast<uint32_t>(v));
    request.max_tokens_field = name;
  });
}

absl::Status ReadStreaming(const Json& body, ApiRequest& request) {
  RETURN_IF_ERROR(ReadBool(body, "stream", [&](bool v) { request.options.set_stream(v); }));
  const Json* stream_options = Find(body, "stream_options");
  if (stream_options == nullptr) return absl::OkStatus();
  if (!stream_options->is_object()) {
    return WrongType("stream_options", "an object", *stream_options);
  }
  if (!request.options.stream()) {
    return absl::InvalidArgumentError("stream_options: makes sense only with \"stream\": true");
  }
  return ReadBool(*stream_options, "include_usage", [&](bool v) { request.include_usage = v; });
}

// All that the two APIs have in common.
absl::Status ReadCommon(const Json& body, const FrontendOptions& options, ApiRequest& request) {
  RETURN_IF_ERROR(RefuseUnsupported(body));
  v1::RequestOptions& out = request.options;
  RETURN_IF_ERROR(ReadString(body, "model", [&](std::string v) { out.set_model(std::move(v)); }));
  RETURN_IF_ERROR(ReadInt(body, "n", 1, options.max_choices,
                          [&](int64_t v) { out.set_n(static_cast<uint32_t>(v)); }));
  RETURN_IF_ERROR(
      ReadString(body, "cache_salt", [&](std::string v) { out.set_cache_salt(std::move(v)); }));
  RETURN_IF_ERROR(ReadInt(body, "priority", kMinInt32, kMaxInt32,
                          [&](int64_t v) { out.set_priority(static_cast<int32_t>(v)); }));
  RETURN_IF_ERROR(
      ReadString(body, "service_tier", [&](std::string v) { out.set_service_tier(std::move(v)); }));
  RETURN_IF_ERROR(ReadMaxTokens(body, "max_tokens", request));
  RETURN_IF_ERROR(ReadStreaming(body, request));
  return ReadSampling(body, *out.mutable_sampling());
}

// A list of parts is joined by line breaks, as vLLM does.
absl::StatusOr<std::string> ReadContent(const Json& message, const std::string& where) {
  const std::string name = where + ".content";
  const Json* content = Find(message, "content");
  if (content == nullptr) return absl::InvalidArgumentError(name + ": is missing");
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return WrongType(name, "a string or a list of parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string part_name = At(name, i);
    if (!part.is_object()) return WrongType(part_name, "an object", part);
    const std::string type = part.contains("type") && part["type"].is_string()
                                 ? part["type"].get<std::string>()
                                 : std::string();
    if (type != "text") {
      return absl::InvalidArgumentError(
          absl::StrCat(part_name, ".type: must be \"text\", not \"", type, "\""));
    }
    const Json* piece = Find(part, "text");
    if (piece == nullptr) return absl::InvalidArgumentError(part_name + ".text: is missing");
    ASSIGN_OR_RETURN(const std::string words, AsString(*piece, part_name + ".text"));
    text += (i == 0 ? "" : "\n") + words;
  }
  return text;
}

absl::StatusOr<engine::ChatMessage> ReadMessage(const Json& message, const std::string& where) {
  if (!message.is_object()) return WrongType(where, "an object", message);
  const Json* role = Find(message, "role");
  if (role == nullptr) return absl::InvalidArgumentError(where + ".role: is missing");
  engine::ChatMessage result;
  ASSIGN_OR_RETURN(result.role, AsString(*role, where + ".role"));
  // OpenAI's newer name for it.
  if (result.role == "developer") result.role = "system";
  ASSIGN_OR_RETURN(result.content, ReadContent(message, where));
  return result;
}

absl::Status ReadMessages(const Json& body, ApiRequest& request) {
  const Json* messages = Find(body, "messages");
  if (messages == nullptr) return absl::InvalidArgumentError("messages: is missing");
  if (!messages->is_array()) return WrongType("messages", "a list", *messages);
  if (messages->empty()) return absl::InvalidArgumentError("messages: is empty");
  for (size_t i = 0; i < messages->size(); ++i) {
    ASSIGN_OR_RETURN(engine::ChatMessage message, ReadMessage((*messages)[i], At("messages", i)));
    request.messages.push_back(std::move(message));
  }
  return absl::OkStatus();
}

absl::Status ReadChatLogprobs(const Json& body, v1::SamplingParams& sampling) {
  bool wanted = false;
  RETURN_IF_ERROR(ReadBool(body, "logprobs", [&](bool v) { wanted = v; }));
  int64_t top = 0;
  RETURN_IF_ERROR(ReadInt(body, "top_logprobs", 0, kMaxLogprobs, [&](int64_t v) { top = v; }));
  if (top > 0 && !wanted) {
    return absl::InvalidArgumentError("top_logprobs: makes sense only with \"logprobs\": true");
  }
  if (wanted) sampling.set_logprobs(static_cast<int32_t>(top));
  return absl::OkStatus();
}

absl::Status ReadTemplateOptions(const Json& body, ApiRequest& request) {
  RETURN_IF_ERROR(ReadBool(body, "add_generation_prompt",
                           [&](bool v) { request.render.add_generation_prompt = v; }));
  const Json* kwargs = Find(body, "chat_template_kwargs");
  if (kwargs == nullptr) return absl::OkStatus();
  if (!kwargs->is_object()) return WrongType("chat_template_kwargs", "an object", *kwargs);
  const Json* thinking = Find(*kwargs, "enable_thinking");
  if (thinking == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(request.render.enable_thinking,
                   AsBool(*thinking, "chat_template_kwargs.enable_thinking"));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> ReadIds(const Json& ids, const std::string& name) {
  std::vector<TokenId> tokens;
  tokens.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    // The name only for an error: a prompt may have a hundred thousand ids.
    absl::StatusOr<int64_t> id = AsInt(ids[i], name, 0, kMaxInt32);
    if (!id.ok()) return AsInt(ids[i], At(name, i), 0, kMaxInt32).status();
    tokens.push_back(static_cast<TokenId>(*id));
  }
  return tokens;
}

// A text, its ids, or a list of either.
absl::Status ReadPrompts(const Json& body, const FrontendOptions& options, ApiRequest& request) {
  const Json* prompt = Find(body, "prompt");
  if (prompt == nullptr) return absl::InvalidArgumentError("prompt: is missing");
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
    return absl::OkStatus();
  }
  if (!prompt->is_array()) return WrongType("prompt", "a string or a list", *prompt);
  if (prompt->empty()) return absl::InvalidArgumentError("prompt: is empty");
  if (prompt->front().is_number()) {
    ASSIGN_OR_RETURN(std::vector<TokenId> tokens, ReadIds(*prompt, "prompt"));
    request.prompts.emplace_back(std::move(tokens));
    return absl::OkStatus();
  }
  if (prompt->size() > static_cast<size_t>(options.max_prompts)) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: has ", prompt->size(), " prompts; at most ", options.max_prompts));
  }
  for (size_t i = 0; i < prompt->size(); ++i) {
    const Json& item = (*prompt)[i];
    if (item.is_string()) {
      request.prompts.emplace_back(item.get<std::string>());
    } else if (item.is_array()) {
      ASSIGN_OR_RETURN(std::vector<TokenId> tokens, ReadIds(item, At("prompt", i)));
      request.prompts.emplace_back(std::move(tokens));
    } else {
      return WrongType(At("prompt", i), "a string or a list of token ids", item);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ApiRequest> ParseChatRequest(const Json& body, const FrontendOptions& options) {
  ApiRequest request;
  request.chat = true;
  RETURN_IF_ERROR(ReadCommon(body, options, request));
  RETURN_IF_ERROR(ReadMaxTokens(body, "max_completion_tokens", request));
  RETURN_IF_ERROR(ReadChatLogprobs(body, *request.options.mutable_sampling()));
  RETURN_IF_ERROR(ReadTemplateOptions(body, request));
  RETURN_IF_ERROR(ReadMessages(body, request));
  return request;
}

absl::StatusOr<ApiRequest> ParseCompletionRequest(const Json& body,
                                                  const FrontendOptions& options) {
  ApiRequest request;
  RETURN_IF_ERROR(ReadCommon(body, options, request));
  v1::SamplingParams& sampling = *request.options.mutable_sampling();
  if (!sampling.has_max_tokens()) sampling.set_max_tokens(kDefaultCompletionTokens);
  RETURN_IF_ERROR(ReadInt(body, "logprobs", 0, kMaxLogprobs,
                          [&](int64_t v) { sampling.set_logprobs(static_cast<int32_t>(v)); }));
  RETURN_IF_ERROR(ReadPrompts(body, options, request));
  return request;
}

}  // namespace tarn::router::openai
