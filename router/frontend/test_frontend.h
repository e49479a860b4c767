#pragma once

// A Frontend over a FakeGateway, served on free ports of the loopback.

#include <glog/logging.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/http/router.h"
#include "common/http/server.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"
#include "router/frontend/frontend.h"
#include "router/frontend/test_model.h"
#include "router/session/fake_gateway.h"

namespace tarn::router {

class TestFrontend {
 public:
  explicit TestFrontend(const FrontendOptions& options = {}, HttpServerOptions http_options = {},
                        std::shared_ptr<const engine::TextModel> model = MakeTestModel())
      : model_(std::move(model)), http_router_(OpenAiErrorBody) {
    frontend_ = std::make_unique<Frontend>(options, FrontendParts{.loop = &loop_,
                                                                  .gateway = gateway_.get(),
                                                                  .model = model_,
                                                                  .status = [] { return Status(); },
                                                                  .explain = &Explain,
                                                                  .registry = &registry_,
                                                                  .random = Random(1)});
    frontend_->AddRoutes(http_router_);
    http_options.error_body = OpenAiErrorBody;
    auto http = HttpServer::Start(std::move(http_options),
                                  [this](HttpRequest request, std::shared_ptr<HttpResponder> to) {
                                    http_router_.Route(std::move(request), std::move(to));
                                  });
    CHECK(http.ok()) << http.status();
    http_ = *std::move(http);
    auto rpc = RpcServer::Start({}, {frontend_->service()});
    CHECK(rpc.ok()) << rpc.status();
    rpc_ = *std::move(rpc);
  }

  ~TestFrontend() {
    rpc_->Shutdown(absl::ZeroDuration());
    http_->Stop(absl::ZeroDuration());
    OnLoop([this] {
      frontend_.reset();
      gateway_.reset();
    });
  }

  // Runs `task` on the loop and waits for it.
  void OnLoop(const std::function<void()>& task) { RunOnLoop(loop_, task); }

  // Whether `condition`, asked on the loop, comes true within 30 s.
  bool Eventually(const std::function<bool()>& condition) {
    const absl::Time end = loop_.Now() + absl::Seconds(30);
    bool holds = false;
    while (!holds && loop_.Now() < end) OnLoop([&] { holds = condition(); });
    return holds;
  }

  // Everything that a client started has gone, and `cancelled` generations did not reach their end.
  bool EndsWithCancelled(int cancelled) {
    return Eventually([&] {
      return frontend_->active() == 0 && gateway_->running() == 0 &&
             gateway_->cancelled() == cancelled;
    });
  }

  void Answer(const std::string& text) {
    const std::vector<TokenId> tokens = model_->tokenizer->Encode(text);
    OnLoop([&] { gateway_->SetScript([tokens](const GenerationRequest&) { return tokens; }); });
  }
  void SetOptions(const FakeGateway::Options& options) {
    OnLoop([&] { gateway_->SetOptions(options); });
  }
  void FailNext(const FakeGateway::Failure& failure) {
    OnLoop([&] { gateway_->FailNext(failure); });
  }
  GenerationRequest LastRequest() {
    GenerationRequest request;
    OnLoop([&] { request = gateway_->requests().back(); });
    return request;
  }

  static v1::GetStatusResponse Status() {
    v1::GetStatusResponse status;
    status.set_router_id("test-router");
    return status;
  }

  static absl::StatusOr<v1::ExplainResponse> Explain(const GenerationRequest& request) {
    v1::ExplainResponse answer;
    answer.set_prompt_tokens(static_cast<uint32_t>(request.prompt.size()));
    answer.set_prefill_node("p0");
    return answer;
  }

  const engine::TextModel& model() const { return *model_; }
  int http_port() const { return http_->port(); }
  const std::string& rpc_address() const { return rpc_->address(); }
  const metrics::Registry& registry() const { return registry_; }

 private:
  metrics::Registry registry_;
  const std::shared_ptr<const engine::TextModel> model_;
  RealEventLoop loop_{"test"};
  std::unique_ptr<FakeGateway> gateway_ = std::make_unique<FakeGateway>(&loop_);
  std::unique_ptr<Frontend> frontend_;
  HttpRouter http_router_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace tarn::router
