#include "router/frontend/openai/response.h"

#include <algorithm>
#include <utility>

#include "engine/text/utf8.h"
#include "router/frontend/openai/error.h"

namespace tarn::router::openai {
namespace {

constexpr char kDone[] = "data: [DONE]\n\n";

OrderedJson UsageJson(const CompletionUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson FinishJson(const std::optional<FinishReason>& reason) {
  if (!reason.has_value()) return nullptr;
  return *reason == FinishReason::kStop ? "stop" : "length";
}

// Valid UTF-8 has one byte a character that is not 10xxxxxx.
int64_t CharacterCount(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string EventOf(const OrderedJson& data) { return "data: " + Dump(data) + "\n\n"; }

}  // namespace

Response::Response(ResponseFacts facts, std::shared_ptr<const engine::TextModel> model)
    : facts_(std::move(facts)),
      model_(std::move(model)),
      choices_(static_cast<size_t>(facts_.choices)) {}

std::string Response::Events(const CompletionChunk& chunk) {
  ChoiceState& state = choices_[chunk.choice];
  std::string events;
  if (facts_.chat && !state.begun) {
    events = Event({{"index", chunk.choice},
                    {"delta", {{"role", "assistant"}, {"content", ""}}},
                    {"logprobs", nullptr},
                    {"finish_reason", nullptr}});
  }
  state.begun = true;
  const bool shows_tokens = facts_.logprobs && !chunk.tokens.empty();
  if (chunk.text.empty() && !shows_tokens && !chunk.finish.has_value()) return events;
  return events + Event(Choice(chunk, "delta"));
}

std::string Response::LastEvents(const CompletionUsage& usage) const {
  if (!facts_.include_usage) return kDone;
  OrderedJson last = Frame(facts_.chat ? "chat.completion.chunk" : "text_completion");
  last["choices"] = OrderedJson::array();
  last["usage"] = UsageJson(usage);
  return EventOf(last) + kDone;
}

std::string Response::ErrorEvents(const absl::Status& status) {
  return EventOf(ToJson(ErrorOf(status))) + kDone;
}

void Response::Add(const CompletionChunk& chunk) {
  choices_[chunk.choice].whole = Choice(chunk, "message");
}

std::string Response::Body(const CompletionUsage& usage) {
  OrderedJson body = Frame(facts_.chat ? "chat.completion" : "text_completion");
  OrderedJson list = OrderedJson::array();
  for (ChoiceState& state : choices_) list.push_back(std::move(state.whole));
  body["choices"] = std::move(list);
  body["usage"] = UsageJson(usage);
  return Dump(body);
}

OrderedJson Response::Frame(const char* object) const {
  return {
      {"id", facts_.id}, {"object", object}, {"created", facts_.created}, {"model", model_->name}};
}

std::string Response::Event(OrderedJson choice) const {
  OrderedJson event = Frame(facts_.chat ? "chat.completion.chunk" : "text_completion");
  event["choices"] = OrderedJson::array({std::move(choice)});
  if (facts_.include_usage) event["usage"] = nullptr;
  return EventOf(event);
}

OrderedJson Response::Choice(const CompletionChunk& chunk, const char* message_field) {
  OrderedJson choice = {{"index", chunk.choice}};
  if (!facts_.chat) {
    choice["text"] = chunk.text;
  } else if (std::string(message_field) == "message") {
    choice["message"] = {{"role", "assistant"}, {"content", chunk.text}};
  } else {
    choice["delta"] =
        chunk.text.empty() ? OrderedJson::object() : OrderedJson{{"content", chunk.text}};
  }
  choice["logprobs"] = Logprobs(chunk);
  choice["finish_reason"] = FinishJson(chunk.finish);
  return choice;
}

OrderedJson Response::Logprobs(const CompletionChunk& chunk) {
  if (!facts_.logprobs) return nullptr;
  return facts_.chat ? ChatLogprobs(chunk) : CompletionLogprobs(chunk);
}

OrderedJson Response::ChatLogprobs(const CompletionChunk& chunk) const {
  OrderedJson content = OrderedJson::array();
  for (const engine::SampledToken& token : chunk.tokens) {
    OrderedJson entry = TokenLogprob(token.token, token.logprob);
    entry["top_logprobs"] = OrderedJson::array();
    for (const engine::TokenLogprob& top : token.top_logprobs) {
      entry["top_logprobs"].push_back(TokenLogprob(top.token, top.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

OrderedJson Response::CompletionLogprobs(const CompletionChunk& chunk) {
  OrderedJson texts = OrderedJson::array(), values = texts, tops = texts, offsets = texts;
  int64_t& offset = choices_[chunk.choice].text_offset;
  for (const engine::SampledToken& token : chunk.tokens) {
    const std::string text = TokenText(token.token);
    OrderedJson top = OrderedJson::object();
    for (const engine::TokenLogprob& likely : token.top_logprobs) {
      top[TokenText(likely.token)] = likely.logprob;
    }
    top[text] = token.logprob;  // also where it is not among the most likely ones
    tops.push_back(std::move(top));
    values.push_back(token.logprob);
    offsets.push_back(offset);
    offset += CharacterCount(text);
    texts.push_back(text);
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(values)},
          {"tokens", std::move(texts)},
          {"top_logprobs", std::move(tops)}};
}

OrderedJson Response::TokenLogprob(TokenId token, float logprob) const {
  OrderedJson bytes = OrderedJson::array();
  for (const char c : model_->tokenizer->TokenBytes(token)) {
    bytes.push_back(static_cast<unsigned char>(c));
  }
  return {{"token", TokenText(token)}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
}

std::string Response::TokenText(TokenId token) const {
  return engine::LossyUtf8(model_->tokenizer->TokenBytes(token));
}

}  // namespace tarn::router::openai
