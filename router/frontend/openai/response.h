#pragma once

// Answers in the two forms of OpenAI's API, whole or as server-sent events. Thread-compatible;
// nothing blocks.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/request/text_model.h"
#include "router/frontend/completion.h"
#include "router/frontend/openai/json.h"

namespace tarn::router::openai {

struct ResponseFacts {
  bool chat = false;
  bool logprobs = false;
  bool include_usage = false;
  std::string id;
  int64_t created = 0;  // Unix seconds
  int choices = 1;
};

class Response {
 public:
  Response(ResponseFacts facts, std::shared_ptr<const engine::TextModel> model);

  // The events of a chunk; none if it has nothing to show yet.
  std::string Events(const CompletionChunk& chunk);
  // The last events of a good answer, and of one that failed on the way.
  std::string LastEvents(const CompletionUsage& usage) const;
  static std::string ErrorEvents(const absl::Status& status);

  // A choice that comes in one chunk, and the body once all are here.
  void Add(const CompletionChunk& chunk);
  std::string Body(const CompletionUsage& usage);

 private:
  struct ChoiceState {
    bool begun = false;
    int64_t text_offset = 0;  // characters so far, for /v1/completions' logprobs
    OrderedJson whole;
  };

  OrderedJson Frame(const char* object) const;
  std::string Event(OrderedJson choice) const;
  OrderedJson Choice(const CompletionChunk& chunk, const char* message_field);
  OrderedJson Logprobs(const CompletionChunk& chunk);
  OrderedJson ChatLogprobs(const CompletionChunk& chunk) const;
  OrderedJson CompletionLogprobs(const CompletionChunk& chunk);
  OrderedJson TokenLogprob(TokenId token, float logprob) const;
  std::string TokenText(TokenId token) const;

  const ResponseFacts facts_;
  const std::shared_ptr<const engine::TextModel> model_;
  std::vector<ChoiceState> choices_;
};

}  // namespace tarn::router::openai
