#include "router/frontend/inference_service.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/unary.h"
#include "engine/text/utf8.h"
#include "router/frontend/wire.h"

namespace tarn::router {
namespace {

using Writer = Stream<v1::GenerateResponse>;

struct CallFacts {
  std::string api, id, client_id, model;
  bool stream = false;
  bool with_logprobs = false;
  size_t max_pending_bytes = 0;
};

// One Generate or Chat. Its completion ends first; the writer stays until the client has all.
class GenerateCall : public ActiveCall, public CompletionListener {
 public:
  GenerateCall(const InferenceParts& parts, CallFacts facts, std::shared_ptr<Writer> writer)
      : parts_(parts), facts_(std::move(facts)), writer_(std::move(writer)) {}

  void Start(absl::StatusOr<CompletionRequest>&& request) {
    if (!request.ok()) return Close(request.status());
    auto completion = Completion::Start(parts_.loop, parts_.gateway, parts_.intake->shared_model(),
                                        *std::move(request), this);
    if (!completion.ok()) return Close(completion.status());
    completion_ = *std::move(completion);
  }

  void OnChunk(CompletionChunk chunk) override {
    v1::GenerateResponse message = ToProto(chunk, facts_.with_logprobs);
    if (!HasRoom()) return;
    message.set_id(facts_.id);
    message.set_model(facts_.model);
    writer_->Send(std::move(message));
  }

  void OnEnd(const absl::Status& status, const CompletionUsage& usage) override {
    if (status.ok()) {
      v1::GenerateResponse message;
      message.set_id(facts_.id);
      message.set_model(facts_.model);
      *message.mutable_usage() = ToProto(usage);
      writer_->Send(std::move(message));
    }
    Close(status);
  }

  // The client is gone, or has everything.
  void OnClosed(const absl::Status& status) {
    parts_.intake->Count(facts_.api, status);
    VLOG(1) << facts_.api << " " << facts_.id << " (client's id: '" << facts_.client_id
            << "'): " << status;
    parts_.calls->Remove(this);
  }

 private:
  void Close(absl::Status status) {
    writer_->Close(std::move(status));
    completion_.reset();
  }

  // Our own limit, since the stream's would be reported only when the client has let go.
  bool HasRoom() {
    if (!facts_.stream || writer_->pending_bytes() <= facts_.max_pending_bytes) return true;
    Close(absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: over ",
                                                    facts_.max_pending_bytes,
                                                    " bytes of the answer are waiting")));
    return false;
  }

  const InferenceParts& parts_;
  const CallFacts facts_;
  const std::shared_ptr<Writer> writer_;
  std::unique_ptr<Completion> completion_;
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return Serve(context, "Generate", request->options(),
               [this, request] { return PromptOf(*request); });
}

InferenceService::PromptTokens InferenceService::PromptOf(
    const v1::GenerateRequest& request) const {
  if (request.has_text()) return parts_.intake->Encode(request.text());
  if (!request.has_tokens()) {
    return absl::InvalidArgumentError("prompt: is missing; give text or tokens");
  }
  const auto& ids = request.tokens().ids();
  return std::vector<TokenId>(ids.begin(), ids.end());
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Chat(
    grpc::CallbackServerContext* context, const v1::ChatRequest* request) {
  return Serve(context, "Chat", request->options(), [this, request] { return Render(*request); });
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Serve(
    grpc::CallbackServerContext* context, const char* api, const v1::RequestOptions& options,
    const std::function<PromptTokens()>& tokenize) {
  CallFacts facts = {
      .api = api,
      .id = parts_.intake->DrawId("gen"),
      .client_id = options.request_id(),
      .model = parts_.intake->model().name,
      .stream = options.stream(),
      .with_logprobs = options.sampling().has_logprobs() && options.sampling().logprobs() >= 0,
      .max_pending_bytes = parts_.intake->options().max_pending_bytes};
  auto accepted = std::make_shared<absl::StatusOr<CompletionRequest>>(Accept(options, tokenize));
  return AcceptWriter<v1::GenerateResponse>(
      context, *parts_.loop, MakeStreamOptions(),
      [this, facts = std::move(facts), accepted](std::shared_ptr<Writer> writer) {
        auto call = std::make_shared<GenerateCall>(parts_, facts, std::move(writer));
        parts_.calls->Add(call);
        call->Start(std::move(*accepted));
        return WriterHandler{
            .on_closed = [weak = std::weak_ptr<GenerateCall>(call)](const absl::Status& status) {
              if (const auto closed = weak.lock()) closed->OnClosed(status);
            }};
      });
}

absl::StatusOr<CompletionRequest> InferenceService::Accept(
    const v1::RequestOptions& options, const std::function<PromptTokens()>& tokenize) {
  const absl::Time received = parts_.loop->Now();
  RETURN_IF_ERROR(parts_.intake->Check(options));
  ASSIGN_OR_RETURN(std::vector<TokenId> prompt, tokenize());
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::move(prompt));
  return parts_.intake->Accept(std::move(prompts), options, received, parts_.loop->Now());
}

InferenceService::PromptTokens InferenceService::Render(const v1::ChatRequest& request) const {
  std::vector<engine::ChatMessage> messages;
  for (const v1::ChatMessage& message : request.messages()) {
    messages.push_back({.role = message.role(), .content = message.content()});
  }
  return parts_.intake->Render(messages, {});
}

StreamOptions InferenceService::MakeStreamOptions() const {
  // Behind our own limit, see GenerateCall: a chunk of a message has an id of 28 bytes at least, so
  // that bytes always run out before messages.
  const size_t limit = parts_.intake->options().max_pending_bytes;
  StreamOptions options;
  options.max_queued_messages = limit / 16 + 1024;
  options.max_queued_bytes = std::max<size_t>(2 * limit, options.max_queued_bytes);
  return options;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  absl::StatusOr<v1::TokenizeResponse> answer = TokenizeNow(*request);
  const absl::Status status = answer.status();
  parts_.intake->Count("Tokenize", status);
  if (status.ok()) *response = *std::move(answer);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::StatusOr<v1::TokenizeResponse> InferenceService::TokenizeNow(
    const v1::TokenizeRequest& request) const {
  RETURN_IF_ERROR(parts_.intake->CheckModel(request.model()));
  const engine::TextModel& model = parts_.intake->model();
  std::vector<TokenId> ids;
  if (request.has_chat()) {
    ASSIGN_OR_RETURN(ids, Render(request.chat()));
  } else if (request.has_text()) {
    ids = model.tokenizer->Encode(
        request.text(),
        {.add_special_tokens = request.add_special_tokens(), .parse_special = true});
  } else {
    return absl::InvalidArgumentError("input: is missing; give text or chat");
  }
  v1::TokenizeResponse response;
  response.mutable_ids()->Add(ids.begin(), ids.end());
  response.set_max_context(static_cast<uint32_t>(model.config.max_position));
  return response;
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest*,
                                                       v1::ListModelsResponse* response) {
  const engine::TextModel& model = parts_.intake->model();
  v1::ModelDescriptor* descriptor = response->add_models();
  descriptor->set_name(model.name);
  descriptor->set_vocab_size(static_cast<uint32_t>(model.config.vocab_size));
  descriptor->set_max_context(static_cast<uint32_t>(model.config.max_position));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetStatus(grpc::CallbackServerContext* context,
                                                      const v1::GetStatusRequest* request,
                                                      v1::GetStatusResponse* response) {
  return HandleUnary<v1::GetStatusRequest, v1::GetStatusResponse>(
      context, *parts_.loop, request, response,
      [this](const v1::GetStatusRequest&, UnaryReply<v1::GetStatusResponse> reply) {
        reply(parts_.status());
      });
}

grpc::ServerUnaryReactor* InferenceService::Explain(grpc::CallbackServerContext* context,
                                                    const v1::GenerateRequest* request,
                                                    v1::ExplainResponse* response) {
  auto accepted = std::make_shared<absl::StatusOr<CompletionRequest>>(
      Accept(request->options(), [this, request] { return PromptOf(*request); }));
  parts_.intake->Count("Explain", accepted->status());
  return HandleUnary<v1::GenerateRequest, v1::ExplainResponse>(
      context, *parts_.loop, request, response,
      [this, accepted](const v1::GenerateRequest&, UnaryReply<v1::ExplainResponse> reply) {
        if (!accepted->ok()) return reply(accepted->status());
        reply(parts_.explain(RequestOfChoice(**accepted, 0)));
      });
}

}  // namespace tarn::router
