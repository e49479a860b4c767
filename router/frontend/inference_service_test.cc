#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <set>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "proto/inference.grpc.pb.h"
#include "router/frontend/test_frontend.h"

namespace tarn::router {
namespace {

// What a call brought.
struct Reply {
  std::vector<v1::GenerateResponse> messages;
  absl::Status status;

  std::string Text(uint32_t choice = 0) const {
    std::string text;
    for (const auto& message : messages) {
      if (message.choice() == choice) text += message.text();
    }
    return text;
  }
  std::vector<int32_t> Tokens(uint32_t choice = 0) const {
    std::vector<int32_t> tokens;
    for (const auto& message : messages) {
      if (message.choice() != choice) continue;
      tokens.insert(tokens.end(), message.token_ids().begin(), message.token_ids().end());
    }
    return tokens;
  }
  v1::FinishReason Finish(uint32_t choice = 0) const {
    v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
    for (const auto& message : messages) {
      if (message.choice() == choice && message.finish_reason() != 0) {
        EXPECT_EQ(reason, v1::FINISH_REASON_UNSPECIFIED);
        reason = message.finish_reason();
      }
    }
    return reason;
  }
};

class InferenceServiceTest : public testing::Test {
 protected:
  void StartServer(const FrontendOptions& options = {},
                   std::shared_ptr<const engine::TextModel> model = MakeTestModel()) {
    server_ = std::make_unique<TestFrontend>(options, HttpServerOptions(), std::move(model));
    channel_ = MakeChannel(server_->rpc_address());
    stub_ = v1::Inference::NewStub(channel_);
  }

  static v1::GenerateRequest Ask(int max_tokens = 5, const std::string& text = "a node") {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_options()->mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_options()->set_stream(true);
    return request;
  }

  static void SetDeadline(grpc::ClientContext& context) {
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  }

  static Reply ReadAll(grpc::ClientContext& context,
                       std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader) {
    Reply reply;
    v1::GenerateResponse message;
    while (reader->Read(&message)) reply.messages.push_back(message);
    reply.status = FromGrpcStatus(reader->Finish(), context);
    return reply;
  }

  Reply Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    return ReadAll(context, stub_->Generate(&context, request));
  }
  Reply Chat(const v1::ChatRequest& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    return ReadAll(context, stub_->Chat(&context, request));
  }
  std::string Refusal(const v1::GenerateRequest& request,
                      absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const Reply reply = Generate(request);
    EXPECT_EQ(reply.status.code(), code) << reply.status;
    EXPECT_TRUE(reply.messages.empty());
    return Message(reply.status);
  }

  std::unique_ptr<TestFrontend> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, StreamsAnAnswerAndItsUsage) {
  StartServer();
  server_->Answer("every node of the pool");
  server_->SetOptions({.cached_tokens = 1});
  const Reply reply = Generate(Ask(4));
  ASSERT_TRUE(reply.status.ok()) << reply.status;
  ASSERT_EQ(reply.Tokens().size(), 4u);
  const auto tokens = reply.Tokens();
  EXPECT_EQ(reply.Text(), server_->model().tokenizer->Decode(tokens));
  EXPECT_EQ(reply.Finish(), v1::FINISH_REASON_LENGTH);
  std::set<std::string> ids;
  for (const auto& message : reply.messages) {
    ids.insert(message.id());
    EXPECT_EQ(message.model(), "tiny");
    EXPECT_EQ(message.has_usage(), &message == &reply.messages.back());
    EXPECT_EQ(message.logprobs_size(), 0);
  }
  EXPECT_EQ(ids.size(), 1u);
  const v1::Usage& usage = reply.messages.back().usage();
  EXPECT_EQ(usage.prompt_tokens(), server_->LastRequest().prompt.size());
  EXPECT_EQ(usage.completion_tokens(), 4u);
  EXPECT_EQ(usage.cached_tokens(), 1u);
  EXPECT_EQ(usage.prompt().local_hbm(), 1u);
  EXPECT_EQ(usage.times().ttft_us(), 10'000);
  EXPECT_EQ(usage.decode_node(), "fake-decode");
  EXPECT_EQ(usage.attempts(), 1u);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(InferenceServiceTest, WithoutStreamingOneMessageAChoice) {
  StartServer();
  auto request = Ask(6);
  request.mutable_options()->mutable_sampling()->set_seed(9);
  request.mutable_options()->set_n(3);
  const Reply streamed = Generate(request);
  request.mutable_options()->set_stream(false);
  const Reply whole = Generate(request);
  ASSERT_EQ(whole.messages.size(), 4u);
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(whole.Tokens(choice), streamed.Tokens(choice));
    EXPECT_EQ(whole.Text(choice), streamed.Text(choice));
    EXPECT_EQ(whole.Finish(choice), v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(whole.Tokens(choice).size(), 6u);
  }
  EXPECT_EQ(whole.messages.back().usage().completion_tokens(), 18u);
}

TEST_F(InferenceServiceTest, TakesTokensStopStringsAndLogprobs) {
  StartServer();
  server_->Answer("every node of the pool");
  v1::GenerateRequest request;
  for (const int id : {3, 1, 4}) request.mutable_tokens()->add_ids(id);
  request.mutable_options()->set_tenant("acme");
  request.mutable_options()->set_cache_salt("s");
  auto* sampling = request.mutable_options()->mutable_sampling();
  sampling->add_stop("node");
  sampling->set_logprobs(2);
  const Reply reply = Generate(request);
  ASSERT_EQ(reply.messages.size(), 2u);
  EXPECT_EQ(reply.Text(), "every ");
  EXPECT_EQ(reply.Finish(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(reply.messages[0].logprobs_size(), reply.messages[0].token_ids_size());
  EXPECT_EQ(reply.messages[0].logprobs(0).top_logprobs_size(), 2);
  const GenerationRequest sent = server_->LastRequest();
  EXPECT_EQ(sent.prompt, (std::vector<TokenId>{3, 1, 4}));
  EXPECT_EQ(sent.salt, SaltFor("acme", "s"));
  EXPECT_TRUE(server_->EndsWithCancelled(1));
}

TEST_F(InferenceServiceTest, ChatsByTheTemplateAndTokenizesTheSame) {
  StartServer();
  v1::ChatRequest request;
  request.mutable_options()->mutable_sampling()->set_max_tokens(2);
  auto* message = request.add_messages();
  message->set_role("user");
  message->set_content("hello");
  EXPECT_TRUE(Chat(request).status.ok());
  v1::TokenizeRequest tokenize;
  *tokenize.mutable_chat() = request;
  v1::TokenizeResponse ids;
  grpc::ClientContext context;
  SetDeadline(context);
  ASSERT_TRUE(stub_->Tokenize(&context, tokenize, &ids).ok());
  const auto prompt = server_->LastRequest().prompt;
  EXPECT_EQ(std::vector<TokenId>(ids.ids().begin(), ids.ids().end()), prompt);
  EXPECT_EQ(server_->model().tokenizer->Decode(prompt),
            "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(ids.max_context(), 4096u);
  message->set_role("poet");
  EXPECT_EQ(Chat(request).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(InferenceServiceTest, ABaseModelSaysThatItCannotChat) {
  StartServer({}, MakeTestModelWithoutChat());
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  const absl::Status status = Chat(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status),
            "messages: tiny cannot chat (the model has no chat template); ask for a completion of "
            "a prompt");
}

TEST_F(InferenceServiceTest, ListsModelsAndStatus) {
  StartServer();
  v1::ListModelsResponse models;
  grpc::ClientContext context;
  SetDeadline(context);
  ASSERT_TRUE(stub_->ListModels(&context, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "tiny");
  EXPECT_EQ(models.models(0).max_context(), 4096u);
  v1::GetStatusResponse status;
  grpc::ClientContext status_context;
  SetDeadline(status_context);
  ASSERT_TRUE(stub_->GetStatus(&status_context, {}, &status).ok());
  EXPECT_EQ(status.router_id(), "test-router");
}

TEST_F(InferenceServiceTest, ExplainsWhatItChecked) {
  StartServer();
  v1::GenerateRequest request;
  request.mutable_tokens()->add_ids(5);
  v1::ExplainResponse answer;
  {
    grpc::ClientContext context;
    SetDeadline(context);
    ASSERT_TRUE(stub_->Explain(&context, request, &answer).ok());
  }
  EXPECT_EQ(answer.prompt_tokens(), 1u);
  EXPECT_EQ(answer.prefill_node(), "p0");
  request.clear_prompt();
  grpc::ClientContext context;
  SetDeadline(context);
  EXPECT_EQ(stub_->Explain(&context, request, &answer).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(InferenceServiceTest, TheServiceTierSetsTheSlo) {
  FrontendOptions options;
  options.classes["fast"].ttft = absl::Milliseconds(300);
  options.classes["default"].tpot = absl::Milliseconds(90);
  StartServer(options);
  auto request = Ask();
  request.mutable_options()->set_service_tier("fast");
  Generate(request);
  EXPECT_EQ(server_->LastRequest().slo.ttft, absl::Milliseconds(300));
  EXPECT_EQ(server_->LastRequest().slo.tpot, absl::InfiniteDuration());
  request.mutable_options()->set_service_tier("auto");
  Generate(request);
  EXPECT_EQ(server_->LastRequest().slo.tpot, absl::Milliseconds(90));
  request.mutable_options()->set_service_tier("slow");
  EXPECT_EQ(Refusal(request), "service_tier: there is no \"slow\"; there are auto, default, fast");
}

TEST_F(InferenceServiceTest, RefusalsNameTheField) {
  StartServer();
  auto request = Ask();
  request.mutable_options()->set_model("gpt-x");
  EXPECT_EQ(Refusal(request, absl::StatusCode::kNotFound),
            "model 'gpt-x' is not served; served: tiny");
  request = Ask();
  request.mutable_options()->set_n(17);
  EXPECT_EQ(Refusal(request), "n: is 17; 1 to 16");
  request = Ask();
  request.mutable_options()->set_tenant(std::string(257, 't'));
  EXPECT_EQ(Refusal(request), "tenant: has 257 bytes; at most 256");
  request = Ask();
  request.mutable_options()->set_cache_salt(std::string(300, 't'));
  EXPECT_EQ(Refusal(request), "cache_salt: has 300 bytes; at most 256");
  request = Ask();
  request.mutable_options()->set_timeout_us(-1);
  EXPECT_EQ(Refusal(request), "timeout_us: is -1; 0 to 3600000000");
  request.mutable_options()->set_timeout_us(std::numeric_limits<int64_t>::max());
  EXPECT_EQ(Refusal(request), "timeout_us: is 9223372036854775807; 0 to 3600000000");
  request = Ask();
  request.clear_prompt();
  EXPECT_EQ(Refusal(request), "prompt: is missing; give text or tokens");
  request = Ask(5, "");
  EXPECT_EQ(Refusal(request), "prompt: is empty; at least one token is needed");
  request = Ask(100'000);
  EXPECT_EQ(Refusal(request).rfind("max_tokens: is 100000; ", 0), 0u);
  request = Ask();
  request.mutable_options()->mutable_sampling()->set_top_p(std::nanf(""));
  EXPECT_NE(Refusal(request).find("top_p"), std::string::npos);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(InferenceServiceTest, InvalidUtf8IsRefusedByFieldAndPlace) {
  StartServer();
  v1::GenerateRequest request = Ask(5, "ab\xff");
  EXPECT_EQ(Refusal(request), "prompt: is not valid UTF-8 at byte 2 of 3");
  request = Ask();
  request.mutable_options()->mutable_sampling()->add_stop("\xc3");
  EXPECT_EQ(Refusal(request), "stop[0]: is not valid UTF-8 at byte 0 of 1");
  request = Ask();
  request.mutable_options()->set_model("\xff");
  EXPECT_EQ(Refusal(request), "model: is not valid UTF-8 at byte 0 of 1");
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(InferenceServiceTest, FailuresKeepCodeMessageAndHint) {
  StartServer();
  server_->FailNext({.status = absl::ResourceExhaustedError("all nodes are full"),
                     .retry_after = absl::Milliseconds(1500)});
  const Reply refused = Generate(Ask());
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(refused.status), "all nodes are full");
  EXPECT_EQ(RetryAfter(refused.status), absl::Milliseconds(1500));
  server_->FailNext({.status = absl::UnavailableError("lost"), .after_tokens = 2});
  const Reply broken = Generate(Ask());
  EXPECT_EQ(broken.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(broken.Tokens().size(), 2u);
  EXPECT_TRUE(server_->EndsWithCancelled(0));
}

TEST_F(InferenceServiceTest, TheRequestsOwnTimeoutEndsIt) {
  StartServer();
  server_->SetOptions({.first_token_after = absl::Hours(1)});
  auto request = Ask();
  request.mutable_options()->set_timeout_us(20'000);
  EXPECT_EQ(Refusal(request, absl::StatusCode::kDeadlineExceeded),
            "the request's time of 20ms is over");
  EXPECT_TRUE(server_->EndsWithCancelled(1));
}

TEST_F(InferenceServiceTest, AClientThatGoesCancelsItsRequest) {
  StartServer();
  server_->SetOptions({.token_interval = absl::Milliseconds(5)});
  auto request = Ask(4000);
  request.mutable_options()->set_n(2);
  grpc::ClientContext context;
  SetDeadline(context);
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server_->EndsWithCancelled(2));
}

TEST_F(InferenceServiceTest, ASlowReaderIsCutOff) {
  StartServer({.max_pending_bytes = 10'000});
  server_->SetOptions({.token_interval = absl::Microseconds(1), .tokens_at_once = 1});
  auto request = Ask(4000);
  // 20 log-probabilities a token: more than what flow control lets on its way unread.
  request.mutable_options()->mutable_sampling()->set_logprobs(20);
  request.mutable_options()->set_n(16);
  grpc::ClientContext context;
  SetDeadline(context);
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  ASSERT_TRUE(server_->EndsWithCancelled(16));
  while (reader->Read(&message)) {
  }
  const absl::Status status = FromGrpcStatus(reader->Finish(), context);
  // Whether the status still gets through depends on when the client reads again.
  EXPECT_TRUE(status.code() == absl::StatusCode::kResourceExhausted ||
              status.code() == absl::StatusCode::kCancelled)
      << status;
  EXPECT_NE(server_->registry().Expose().find(
                "tarn_frontend_requests_total{api=\"Generate\",code=\"RESOURCE_EXHAUSTED\"} 1"),
            std::string::npos)
      << server_->registry().Expose();
}

TEST_F(InferenceServiceTest, TheServersEndIsCleanWithCallsUnderWay) {
  StartServer();
  server_->SetOptions({.first_token_after = absl::Hours(1)});
  grpc::ClientContext context;
  SetDeadline(context);
  auto reader = stub_->Generate(&context, Ask());
  reader->WaitForInitialMetadata();
  server_.reset();
  v1::GenerateResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace tarn::router
