#pragma once

// The gRPC Inference service. Requests are checked and tokenised on gRPC's threads, and run on the
// loop.

#include <functional>
#include <memory>

#include "common/rpc/server_stream.h"
#include "common/runtime/event_loop.h"
#include "proto/inference.grpc.pb.h"
#include "router/frontend/active_calls.h"
#include "router/frontend/intake.h"
#include "router/session/gateway.h"

namespace tarn::router {

// All of it outlives the service.
struct InferenceParts {
  EventLoop* loop = nullptr;
  Gateway* gateway = nullptr;  // loop-only, as is `calls`
  ActiveCalls* calls = nullptr;
  Intake* intake = nullptr;
  std::function<v1::GetStatusResponse()> status;  // runs on the loop
  std::function<absl::StatusOr<v1::ExplainResponse>(const GenerationRequest&)> explain;  // so too
};

class InferenceService : public v1::Inference::CallbackService {
 public:
  explicit InferenceService(InferenceParts parts) : parts_(std::move(parts)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Chat(grpc::CallbackServerContext* context,
                                                       const v1::ChatRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::GenerateRequest* request,
                                    v1::ExplainResponse* response) override;

 private:
  using PromptTokens = absl::StatusOr<std::vector<TokenId>>;

  // Serves `options` with the prompt that `tokenize` makes, once the options are in order.
  grpc::ServerWriteReactor<v1::GenerateResponse>* Serve(
      grpc::CallbackServerContext* context, const char* api, const v1::RequestOptions& options,
      const std::function<PromptTokens()>& tokenize);
  absl::StatusOr<CompletionRequest> Accept(const v1::RequestOptions& options,
                                           const std::function<PromptTokens()>& tokenize);
  PromptTokens PromptOf(const v1::GenerateRequest& request) const;
  PromptTokens Render(const v1::ChatRequest& request) const;
  absl::StatusOr<v1::TokenizeResponse> TokenizeNow(const v1::TokenizeRequest& request) const;
  StreamOptions MakeStreamOptions() const;

  const InferenceParts parts_;
};

}  // namespace tarn::router
