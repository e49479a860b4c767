#pragma once

// OpenAI's HTTP API. Bodies are parsed and tokenised on the HTTP server's I/O threads; requests run
// on the loop.
//
// A stream's head goes out with its first token, so that a request which is refused, or fails
// before that, gets an error status. One that fails later gets an error event.

#include <memory>
#include <string>

#include "common/http/router.h"
#include "common/runtime/event_loop.h"
#include "router/frontend/active_calls.h"
#include "router/frontend/intake.h"
#include "router/frontend/openai/request.h"
#include "router/session/gateway.h"

namespace tarn::router::openai {

// All of it outlives the Api.
struct ApiParts {
  EventLoop* loop = nullptr;
  Gateway* gateway = nullptr;  // loop-only, as is `calls`
  ActiveCalls* calls = nullptr;
  Intake* intake = nullptr;
};

class Api {
 public:
  explicit Api(ApiParts parts);

  // Before the HTTP server starts; the Api outlives it.
  void AddRoutes(HttpRouter& router);

 private:
  struct Accepted;

  void Serve(bool chat, HttpRequest request, std::shared_ptr<HttpResponder> responder);
  absl::StatusOr<Accepted> Accept(bool chat, const HttpRequest& request) const;
  absl::StatusOr<ApiRequest> Parse(bool chat, const HttpRequest& request) const;
  absl::StatusOr<std::vector<std::vector<TokenId>>> Tokenize(const ApiRequest& request) const;
  OrderedJson ModelJson() const;
  void ReplyModel(const std::string& name, HttpResponder& responder) const;

  const ApiParts parts_;
  const absl::Time started_;
};

}  // namespace tarn::router::openai
