#pragma once

// The router's face: the gRPC Inference service and the OpenAI HTTP API, over one Gateway.
//
//   gRPC client ──► InferenceService ─┐
//                                     ├─► Completion ─► Gateway (router/session)
//   OpenAI client ─► openai::Api ─────┘
//
// Parsing and tokenising happen on the thread that a request came in on; all else on the router's
// loop. Nothing blocks.
//
// Order of the end: Drain the gateway, Shutdown the RpcServer and Stop the HttpServer with a grace
// (the loop still runs), then destroy the Frontend on the loop or when the loop has stopped, then
// the gateway. Requests still under way are cancelled by the destructor.

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/http/router.h"
#include "common/metrics/registry.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "common/runtime/random.h"
#include "engine/request/text_model.h"
#include "proto/inference.pb.h"
#include "router/policy/slo.h"
#include "router/session/gateway.h"

namespace tarn::router {

struct FrontendOptions {
  absl::Duration default_timeout = absl::Minutes(10);  // of a request that names none
  absl::Duration max_timeout = absl::Hours(1);         // a longer one is refused
  int max_choices = 16;                                // `n`
  int max_prompts = 64;                                // in one /v1/completions
  size_t max_name_bytes = 256;                         // of tenant, cache_salt and request_id
  // A stream whose gRPC client reads so slowly that more than this waits is cut off. For HTTP it is
  // HttpServerOptions::max_pending_bytes.
  size_t max_pending_bytes = 4 << 20;
  // By name (service_tier). Requests that name none are of "default", which promises nothing where
  // it is not given.
  std::map<std::string, Slo> classes;
};

// What the frontend stands on; all of it outlives the Frontend and the servers that carry it.
struct FrontendParts {
  EventLoop* loop = nullptr;
  Gateway* gateway = nullptr;
  std::shared_ptr<const engine::TextModel> model;
  // What GetStatus answers; runs on the loop.
  std::function<v1::GetStatusResponse()> status;
  // What Explain answers; runs on the loop.
  std::function<absl::StatusOr<v1::ExplainResponse>(const GenerationRequest&)> explain;
  metrics::Registry* registry = nullptr;
  Random random{0};  // draws seeds and ids: seed it from entropy, or by hand for a replay
};

class Frontend {
 public:
  Frontend(const FrontendOptions& options, FrontendParts parts);
  ~Frontend();
  Frontend(const Frontend&) = delete;
  Frontend& operator=(const Frontend&) = delete;

  // For RpcServer::Start. Owned by the Frontend.
  grpc::Service* service();

  // /v1/chat/completions, /v1/completions, /v1/models. Before the HTTP server starts.
  void AddRoutes(HttpRouter& router);

  // Requests under way, of both protocols. Loop-only.
  size_t active() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

// An error in OpenAI's form, for HttpServerOptions::error_body and HttpRouter.
std::string OpenAiErrorBody(int status, const std::string& message);

}  // namespace tarn::router
