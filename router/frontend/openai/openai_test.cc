#include <glog/logging.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/http/test_client.h"
#include "engine/text/utf8.h"
#include "router/frontend/test_frontend.h"

namespace tarn::router {
namespace {

using Json = nlohmann::json;

constexpr char kChat[] = "/v1/chat/completions";
constexpr char kCompletions[] = "/v1/completions";

Json ChatBody(const Json& more = Json::object()) {
  Json body = {{"model", "tiny"},
               {"messages", {{{"role", "user"}, {"content", "hello"}}}},
               {"max_tokens", 5}};
  body.update(more);
  return body;
}

Json CompletionBody(const Json& more = Json::object()) {
  Json body = {{"model", "tiny"}, {"prompt", "a node"}, {"max_tokens", 5}};
  body.update(more);
  return body;
}

Json Streamed(Json body, const Json& more = Json::object()) {
  body["stream"] = true;
  body.update(more);
  return body;
}

// The JSON of each event; the last one must be [DONE].
std::vector<Json> Events(const std::string& body) {
  std::vector<Json> events;
  size_t at = 0;
  bool done = false;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    EXPECT_EQ(body.compare(at, 6, "data: "), 0);
    EXPECT_FALSE(done);
    const std::string data = body.substr(at + 6, end - at - 6);
    EXPECT_EQ(engine::ValidUtf8Prefix(data), data.size());
    done = data == "[DONE]";
    if (!done) events.push_back(Json::parse(data));
    at = end + 2;
  }
  EXPECT_TRUE(done);
  return events;
}

class OpenAiTest : public testing::Test {
 protected:
  void StartServer(const FrontendOptions& options = {}, HttpServerOptions http = {},
                   std::shared_ptr<const engine::TextModel> model = MakeTestModel()) {
    server_ = std::make_unique<TestFrontend>(options, std::move(http), std::move(model));
  }

  HttpTestResponse Post(const std::string& path, const std::string& body,
                        const HttpHeaders& headers = {}) {
    HttpTestClient client(server_->http_port());
    EXPECT_TRUE(client.SendRequest("POST", path, body, headers));
    return client.ReadResponse();
  }

  Json Ask(const std::string& path, const Json& body) {
    const HttpTestResponse response = Post(path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.Header("Content-Type"), "application/json");
    return Json::parse(response.body);
  }

  std::vector<Json> Stream(const std::string& path, const Json& body) {
    const HttpTestResponse response = Post(path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.Header("Content-Type"), "text/event-stream; charset=utf-8");
    return Events(response.body);
  }

  // The error's message and param of a refusal with 400.
  void ExpectRefused(const std::string& path, const std::string& body, const Json& param,
                     const std::string& message) {
    const HttpTestResponse response = Post(path, body);
    EXPECT_EQ(response.status, 400) << response.body;
    const Json error = Json::parse(response.body).at("error");
    EXPECT_EQ(error.at("type"), "invalid_request_error");
    EXPECT_EQ(error.at("param"), param) << response.body;
    EXPECT_NE(error.at("message").get<std::string>().find(message), std::string::npos)
        << error.at("message");
    EXPECT_TRUE(error.contains("code"));
  }
  void ExpectRefused(const std::string& path, const Json& body, const Json& param,
                     const std::string& message) {
    ExpectRefused(path, body.dump(), param, message);
  }

  std::unique_ptr<TestFrontend> server_;
};

TEST_F(OpenAiTest, ChatsWhole) {
  StartServer();
  server_->Answer("every node of the pool");
  server_->SetOptions({.cached_tokens = 3});
  const Json answer = Ask(kChat, ChatBody());
  EXPECT_EQ(answer.at("object"), "chat.completion");
  EXPECT_EQ(answer.at("model"), "tiny");
  EXPECT_EQ(answer.at("id").get<std::string>().rfind("chatcmpl-", 0), 0u);
  ASSERT_EQ(answer.at("choices").size(), 1u);
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice.at("message").at("role"), "assistant");
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_TRUE(choice.at("logprobs").is_null());
  const auto prompt = server_->LastRequest().prompt;
  EXPECT_EQ(server_->model().tokenizer->Decode(prompt),
            "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
  const Json& usage = answer.at("usage");
  EXPECT_EQ(usage.at("prompt_tokens"), prompt.size());
  EXPECT_EQ(usage.at("completion_tokens"), 5);
  EXPECT_EQ(usage.at("total_tokens"), prompt.size() + 5);
  EXPECT_EQ(usage.at("prompt_tokens_details").at("cached_tokens"), 3);
}

TEST_F(OpenAiTest, StreamedChatEqualsTheWholeOne) {
  StartServer();
  server_->Answer("every node of the pool has \xe6\xb9\x96 pages");
  const Json body = ChatBody({{"max_completion_tokens", 12}, {"n", 2}, {"stop", "nothing"}});
  const Json whole = Ask(kChat, body);
  const auto events =
      Stream(kChat, Streamed(body, {{"stream_options", {{"include_usage", true}}}}));
  std::string texts[2];
  Json reasons[2];
  int roles[2] = {0, 0};
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_EQ(events[i].at("object"), "chat.completion.chunk");
    EXPECT_EQ(events[i].at("id"), events[0].at("id"));
    EXPECT_TRUE(events[i].at("usage").is_null());
    const Json& choice = events[i].at("choices").at(0);
    const int index = choice.at("index");
    EXPECT_TRUE(reasons[index].is_null());
    roles[index] += choice.at("delta").contains("role");
    texts[index] += choice.at("delta").value("content", "");
    reasons[index] = choice.at("finish_reason");
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(roles[i], 1);
    EXPECT_EQ(texts[i], whole.at("choices").at(i).at("message").at("content"));
    EXPECT_EQ(reasons[i], "length");
  }
  EXPECT_TRUE(events.back().at("choices").empty());
  EXPECT_EQ(events.back().at("usage"), whole.at("usage"));
  EXPECT_EQ(events.back().at("usage").at("completion_tokens"), 24);
}

TEST_F(OpenAiTest, CompletesEachFormOfPrompt) {
  StartServer();
  const struct {
    Json prompt;
    size_t count;
  } kForms[] = {{"a node", 1},
                {{"a node", "the pool", "a page"}, 3},
                {{1, 2, 3}, 1},
                {{{1, 2, 3}, {4, 5}}, 2}};
  for (const auto& [prompt, count] : kForms) {
    const Json answer = Ask(kCompletions, CompletionBody({{"prompt", prompt}, {"n", 2}}));
    EXPECT_EQ(answer.at("object"), "text_completion");
    ASSERT_EQ(answer.at("choices").size(), 2 * count);
    for (size_t i = 0; i < 2 * count; ++i) {
      EXPECT_EQ(answer["choices"][i].at("index"), i);
      EXPECT_TRUE(answer["choices"][i].at("text").is_string());
      EXPECT_EQ(answer["choices"][i].at("finish_reason"), "length");
    }
    EXPECT_EQ(answer.at("usage").at("completion_tokens"), 2 * count * 5);
  }
  EXPECT_EQ(server_->LastRequest().prompt, (std::vector<TokenId>{4, 5}));
  Json body = CompletionBody();
  body.erase("max_tokens");
  EXPECT_EQ(Ask(kCompletions, body).at("usage").at("completion_tokens"), 16);
}

TEST_F(OpenAiTest, StreamedCompletionEqualsTheWholeOne) {
  StartServer();
  const Json body =
      CompletionBody({{"prompt", {"a node", "a pool"}}, {"logprobs", 2}, {"seed", 3}});
  const Json whole = Ask(kCompletions, body);
  std::vector<std::string> texts(2);
  std::vector<Json> tokens(2, Json::array()), offsets(2, Json::array());
  for (const Json& event : Stream(kCompletions, Streamed(body))) {
    EXPECT_FALSE(event.contains("usage"));
    const Json& choice = event.at("choices").at(0);
    const int index = choice.at("index");
    texts[index] += choice.at("text");
    for (const Json& token : choice.at("logprobs").at("tokens")) tokens[index].push_back(token);
    for (const Json& at : choice["logprobs"].at("text_offset")) offsets[index].push_back(at);
  }
  for (int i = 0; i < 2; ++i) {
    const Json& choice = whole.at("choices").at(i);
    EXPECT_EQ(texts[i], choice.at("text"));
    EXPECT_EQ(tokens[i], choice.at("logprobs").at("tokens"));
    EXPECT_EQ(offsets[i], choice.at("logprobs").at("text_offset"));
  }
}

TEST_F(OpenAiTest, LogprobsInBothForms) {
  StartServer();
  server_->Answer("every node of the pool");
  const Json chat = Ask(kChat, ChatBody({{"logprobs", true}, {"top_logprobs", 2}}));
  const Json content = chat.at("choices").at(0).at("logprobs").at("content");
  ASSERT_EQ(content.size(), 5u);
  std::string said;
  for (const Json& token : content) {
    EXPECT_EQ(token.at("top_logprobs").size(), 2u);
    EXPECT_EQ(token.at("logprob"), -0.5);
    for (const int byte : token.at("bytes")) said += static_cast<char>(byte);
  }
  EXPECT_EQ(said, chat["choices"][0].at("message").at("content"));
  EXPECT_EQ(content[0].at("top_logprobs").at(0).at("token"), content[0].at("token"));

  const Json text = Ask(kCompletions, CompletionBody({{"logprobs", 0}}));
  const Json& logprobs = text.at("choices").at(0).at("logprobs");
  for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
    EXPECT_EQ(logprobs.at(list).size(), 5u) << list;
  }
  EXPECT_EQ(logprobs.at("text_offset").at(1),
            logprobs.at("tokens").at(0).get<std::string>().size());
  // Asked for without the most likely ones.
  const Json plain = Ask(kChat, ChatBody({{"logprobs", true}}));
  EXPECT_TRUE(
      plain.at("choices").at(0).at("logprobs").at("content").at(0).at("top_logprobs").empty());
}

TEST_F(OpenAiTest, AStopStringEndsTheStreamAndTheGeneration) {
  StartServer();
  server_->Answer("every node of the pool");
  std::string text;
  Json reason;
  for (const Json& event :
       Stream(kChat, Streamed(ChatBody({{"max_tokens", 50}, {"stop", {"zzz", "de of"}}})))) {
    text += event.at("choices").at(0).at("delta").value("content", "");
    reason = event["choices"][0].at("finish_reason");
  }
  EXPECT_EQ(text, "every no");
  EXPECT_EQ(reason, "stop");
  EXPECT_TRUE(server_->EndsWithCancelled(1));
}

TEST_F(OpenAiTest, FieldsReachTheEngine) {
  StartServer();
  const Json body = ChatBody({{"temperature", 0.5},
                              {"top_p", 0.9},
                              {"top_k", 7},
                              {"min_p", 0.25},
                              {"repetition_penalty", 1.5},
                              {"presence_penalty", -1},
                              {"frequency_penalty", 1.25},
                              {"seed", -2},
                              {"min_tokens", 2},
                              {"stop_token_ids", {300}},
                              {"ignore_eos", true},
                              {"cache_salt", "pepper"},
                              {"priority", -4},
                              {"user", "ignored"},
                              {"nobody_knows_this", {{"deep", true}}},
                              {"stop", nullptr},
                              {"tools", Json::array()}});
  EXPECT_EQ(Post(kChat, body.dump(), {{"X-Tarn-Tenant", "acme"}}).status, 200);
  const GenerationRequest sent = server_->LastRequest();
  EXPECT_EQ(sent.sampling.temperature, 0.5f);
  EXPECT_EQ(sent.sampling.top_p, 0.9f);
  EXPECT_EQ(sent.sampling.top_k, 7);
  EXPECT_EQ(sent.sampling.min_p, 0.25f);
  EXPECT_EQ(sent.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(sent.sampling.presence_penalty, -1.0f);
  EXPECT_EQ(sent.sampling.frequency_penalty, 1.25f);
  EXPECT_EQ(sent.sampling.seed, static_cast<uint64_t>(-2));
  EXPECT_EQ(sent.sampling.min_tokens, 2);
  EXPECT_EQ(sent.end_tokens, std::vector<TokenId>{300});
  EXPECT_EQ(sent.max_new_tokens, 5);
  EXPECT_EQ(sent.tenant, "acme");
  EXPECT_EQ(sent.salt, SaltFor("acme", "pepper"));
  EXPECT_EQ(sent.priority, -4);
  EXPECT_EQ(sent.deadline - sent.received, absl::Minutes(10));
}

TEST_F(OpenAiTest, ContentMayBeParts) {
  StartServer();
  const Json parts = {{{"type", "text"}, {"text", "one"}}, {{"type", "text"}, {"text", "two"}}};
  Ask(kChat, ChatBody({{"messages",
                        {{{"role", "developer"}, {"content", "short"}},
                         {{"role", "user"}, {"content", parts}}}}}));
  EXPECT_EQ(server_->model().tokenizer->Decode(server_->LastRequest().prompt),
            "<|im_start|>system\nshort<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST_F(OpenAiTest, ListsModels) {
  StartServer();
  HttpTestClient client(server_->http_port());
  const Json list = Json::parse(client.Get("/v1/models").body);
  EXPECT_EQ(list.at("object"), "list");
  EXPECT_EQ(list.at("data").at(0).at("id"), "tiny");
  EXPECT_EQ(Json::parse(client.Get("/v1/models/tiny").body), list["data"][0]);
  EXPECT_EQ(client.Get("/v1/models/t%69ny").status, 200);
  const HttpTestResponse unknown = client.Get("/v1/models/org%2Fother");
  EXPECT_EQ(unknown.status, 404);
  const Json error = Json::parse(unknown.body).at("error");
  EXPECT_EQ(error.at("code"), "model_not_found");
  EXPECT_EQ(error.at("message"), "model 'org/other' is not served; served: tiny");
}

TEST_F(OpenAiTest, AnUnknownModelIsNotFound) {
  StartServer();
  const HttpTestResponse response = Post(kChat, ChatBody({{"model", "gpt"}}).dump());
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(Json::parse(response.body).at("error").at("param"), "model");
}

TEST_F(OpenAiTest, BadValuesNameTheField) {
  StartServer();
  const struct {
    Json field;
    const char* message;
  } kBoth[] = {{{{"temperature", -0.1}}, "temperature"},
               {{{"temperature", "hot"}}, "must be a number, not string"},
               {{{"temperature", 1e300}}, "temperature"},
               {{{"top_p", 0}}, "top_p"},
               {{{"top_k", -5}}, "-1 to"},
               {{{"top_k", 1.5}}, "must be an integer, not 1.5"},
               {{{"min_p", 2}}, "min_p"},
               {{{"presence_penalty", 3}}, "presence_penalty"},
               {{{"seed", 1e30}}, "seed"},
               {{{"n", 0}}, "is 0; 1 to 16"},
               {{{"n", 17}}, "is 17; 1 to 16"},
               {{{"max_tokens", 0}}, "is 0"},
               {{{"max_tokens", -1}}, "is -1"},
               {{{"max_tokens", 100000}}, "is 100000"},
               {{{"min_tokens", 6}}, "at most max_tokens"},
               {{{"stream", "yes"}}, "must be true or false"},
               {{{"stream_options", {{"include_usage", true}}}}, "only with"},
               {{{"stop", 5}}, "a string or a list of strings"},
               {{{"ignore_eos", 1}}, "must be true or false"},
               {{{"cache_salt", std::string(257, 's')}}, "has 257 bytes; at most 256"},
               {{{"priority", 1e10}}, "priority"},
               {{{"model", 7}}, "must be a string"},
               {{{"best_of", 2}}, "not supported"},
               {{{"echo", true}}, "not supported"},
               {{{"logit_bias", {{"5", 1}}}}, "not supported"},
               {{{"response_format", {{"type", "json_object"}}}}, "not supported"},
               {{{"stop_token_ids", {5000}}}, "5000"}};
  for (const auto& [field, message] : kBoth) {
    const std::string name = field.begin().key();
    ExpectRefused(kChat, ChatBody(field), name, message);
    ExpectRefused(kCompletions, CompletionBody(field), name, message);
  }
  ExpectRefused(kChat, ChatBody({{"stop", {"a", ""}}}), "stop[1]", "0 bytes");
  ExpectRefused(kChat, ChatBody({{"stop", {"a", 1}}}), "stop[1]", "must be a string");
  ExpectRefused(kChat, ChatBody({{"logprobs", true}, {"top_logprobs", 21}}), "top_logprobs",
                "0 to 20");
  ExpectRefused(kChat, ChatBody({{"top_logprobs", 2}}), "top_logprobs", "only with");
  ExpectRefused(kChat, ChatBody({{"max_completion_tokens", 99999}}), "max_completion_tokens",
                "max_completion_tokens: is 99999");
  ExpectRefused(kChat, ChatBody({{"tools", {1}}}), "tools", "not supported");
  ExpectRefused(kCompletions, CompletionBody({{"logprobs", 21}}), "logprobs", "0 to 20");
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(OpenAiTest, BadMessagesAndPromptsNameTheirPlace) {
  StartServer({.max_prompts = 2});
  const auto chat = [](const Json& messages) { return ChatBody({{"messages", messages}}); };
  ExpectRefused(kChat, Json{{"model", "tiny"}}, "messages", "is missing");
  ExpectRefused(kChat, chat("hi"), "messages", "must be a list");
  ExpectRefused(kChat, chat(Json::array()), "messages", "is empty");
  ExpectRefused(kChat, chat({"hi"}), "messages[0]", "must be an object");
  ExpectRefused(kChat, chat({{{"content", "x"}}}), "messages[0].role", "is missing");
  ExpectRefused(kChat, chat({{{"role", "user"}}}), "messages[0].content", "is missing");
  ExpectRefused(kChat, chat({{{"role", "user"}, {"content", 5}}}), "messages[0].content",
                "a string or a list of parts");
  ExpectRefused(kChat, chat({{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}),
                "messages[0].content[0].type", "not \"image_url\"");
  const auto text = [](const Json& prompt) { return CompletionBody({{"prompt", prompt}}); };
  ExpectRefused(kCompletions, Json{{"model", "tiny"}}, "prompt", "is missing");
  ExpectRefused(kCompletions, text(""), "prompt", "is empty");
  ExpectRefused(kCompletions, text(Json::array()), "prompt", "is empty");
  ExpectRefused(kCompletions, text({"a", "b", "c"}), "prompt", "has 3 prompts; at most 2");
  ExpectRefused(kCompletions, text({1, "a"}), "prompt[1]", "must be an integer");
  ExpectRefused(kCompletions, text({1, -1}), "prompt[1]", "is -1");
  ExpectRefused(kCompletions, text({{1, 2}, {3, 1024}}), "prompt", "ids are 0 to 1023");
  ExpectRefused(kCompletions, text(std::vector<int>(5000, 1)), "prompt", "has 5000 tokens");
}

TEST_F(OpenAiTest, BadJsonSaysWhere) {
  StartServer();
  ExpectRefused(kChat, std::string(), nullptr, "not valid JSON");
  ExpectRefused(kChat, std::string("{\"model\": \n nope}"), nullptr, "line 2, column");
  ExpectRefused(kChat, std::string("{\"temperature\": NaN}"), nullptr, "line 1, column");
  ExpectRefused(kChat, std::string("{\"temperature\": 1e999}"), nullptr, "number overflow");
  ExpectRefused(kChat, std::string("[1]"), nullptr, "must be a JSON object, not array");
  ExpectRefused(kChat, std::string("{\"model\": \"\xff\"}"), nullptr, "UTF-8");
  ExpectRefused(kChat, std::string("{\"model\": \"\\ud800\"}"), nullptr, "not valid JSON");
  ExpectRefused(kChat, std::string(1'000'000, '['), nullptr, "nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  ExpectRefused(kChat, objects, nullptr, "nested deeper");
  // Brackets inside strings are no nesting.
  const std::string brackets(200, '[');
  EXPECT_EQ(Post(kCompletions, CompletionBody({{"prompt", "\"" + brackets}}).dump()).status, 200);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(OpenAiTest, ABaseModelCannotChat) {
  StartServer({}, {}, MakeTestModelWithoutChat());
  ExpectRefused(kChat, ChatBody(), "messages", "has no chat template");
}

TEST_F(OpenAiTest, AHugeBodyIsRefused) {
  StartServer();
  HttpTestClient client(server_->http_port());
  client.SendRaw("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n");
  const HttpTestResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 413);
  EXPECT_EQ(Json::parse(response.body).at("error").at("type"), "invalid_request_error");
}

TEST_F(OpenAiTest, UnknownPathsAndMethodsAreErrorsOfTheSameForm) {
  StartServer();
  HttpTestClient client(server_->http_port());
  EXPECT_TRUE(Json::parse(client.Get("/v1/nothing").body).at("error").contains("message"));
  EXPECT_EQ(client.Get(kChat).status, 405);
}

TEST_F(OpenAiTest, FailuresBeforeTheFirstTokenHaveTheirStatus) {
  StartServer();
  const struct {
    absl::Status status;
    int http;
    const char* type;
  } kFailures[] = {
      {absl::ResourceExhaustedError("full"), 429, "rate_limit_error"},
      {absl::UnavailableError("no decode node"), 503, "service_unavailable_error"},
      {absl::DeadlineExceededError("late"), 504, "timeout_error"},
      {absl::InternalError("oops"), 500, "server_error"},
      {absl::DataLossError("oops"), 500, "server_error"},
  };
  for (const auto& [status, http, type] : kFailures) {
    for (const bool stream : {false, true}) {
      server_->FailNext({.status = status, .retry_after = absl::Milliseconds(1200)});
      const auto response = Post(kChat, ChatBody({{"stream", stream}}).dump());
      EXPECT_EQ(response.status, http);
      EXPECT_EQ(response.Header("Retry-After"), "2");
      EXPECT_EQ(response.Header("retry-after-ms"), "1200");
      EXPECT_EQ(Json::parse(response.body).at("error").at("type"), type);
    }
  }
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(OpenAiTest, AFailureInTheStreamIsAnEvent) {
  StartServer();
  server_->FailNext({.status = absl::UnavailableError("lost"), .after_tokens = 2});
  const auto events = Stream(kChat, Streamed(ChatBody()));
  EXPECT_EQ(events.back().at("error").at("message"), "lost");
  EXPECT_EQ(events.back()["error"].at("code"), "unavailable");
  server_->FailNext({.status = absl::UnavailableError("lost"), .after_tokens = 2});
  EXPECT_EQ(Post(kChat, ChatBody().dump()).status, 503);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(OpenAiTest, TheDeadlineEndsARequest) {
  StartServer({.default_timeout = absl::Milliseconds(20)});
  server_->SetOptions({.first_token_after = absl::Hours(1)});
  EXPECT_EQ(Post(kChat, ChatBody().dump()).status, 504);
  EXPECT_TRUE(server_->EndsWithCancelled(1));
}

TEST_F(OpenAiTest, AClientThatHangsUpCancels) {
  StartServer();
  for (const bool stream : {true, false}) {
    server_->SetOptions({.first_token_after = stream ? absl::Milliseconds(1) : absl::Hours(1)});
    HttpTestClient client(server_->http_port());
    const Json body = ChatBody({{"max_tokens", 4000}, {"n", 2}, {"stream", stream}});
    ASSERT_TRUE(client.SendRequest("POST", kChat, body.dump()));
    if (stream) {
      EXPECT_EQ(client.ReadHead().status, 200);
      EXPECT_TRUE(client.ReadChunk().has_value());
    }
    client.Close();
    EXPECT_TRUE(server_->EndsWithCancelled(stream ? 2 : 4));
  }
}

TEST_F(OpenAiTest, ASlowReaderIsCut) {
  StartServer({}, {.max_pending_bytes = 50'000});
  server_->SetOptions({.token_interval = absl::Microseconds(1)});
  HttpTestClient client(server_->http_port(), 4096);
  const Json body = Streamed(
      ChatBody({{"max_tokens", 4000}, {"n", 16}, {"logprobs", true}, {"top_logprobs", 20}}));
  ASSERT_TRUE(client.SendRequest("POST", kChat, body.dump()));
  // Not even the head is read: the cut may come before it could be.
  EXPECT_TRUE(server_->EndsWithCancelled(16));
}

TEST_F(OpenAiTest, OneConnectionServesManyRequestsAndCountsThem) {
  StartServer();
  HttpTestClient client(server_->http_port());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client.Post(kChat, ChatBody().dump()).status, 200);
    EXPECT_EQ(Events(client.Post(kChat, Streamed(ChatBody()).dump()).body).empty(), false);
  }
  EXPECT_EQ(client.Post(kChat, "{").status, 400);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
  const std::string metrics = server_->registry().Expose();
  for (const char* line :
       {"tarn_frontend_requests_total{api=\"/v1/chat/completions\",code=\"OK\"} 6",
        "tarn_frontend_requests_total{api=\"/v1/chat/completions\",code=\"INVALID_ARGUMENT\"} 1",
        "tarn_frontend_active_requests 0", "tarn_frontend_tokenize_seconds_count 6"}) {
    EXPECT_NE(metrics.find(line), std::string::npos) << line << "\n" << metrics;
  }
}

}  // namespace
}  // namespace tarn::router
