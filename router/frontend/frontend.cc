#include "router/frontend/frontend.h"

#include <glog/logging.h>

#include <utility>

#include "router/frontend/active_calls.h"
#include "router/frontend/inference_service.h"
#include "router/frontend/intake.h"
#include "router/frontend/openai/api.h"

namespace tarn::router {

class Frontend::Impl {
 public:
  Impl(const FrontendOptions& options, FrontendParts parts)
      : intake_(options, std::move(parts.model), std::move(parts.random), *parts.registry),
        service_({.loop = parts.loop,
                  .gateway = parts.gateway,
                  .calls = &calls_,
                  .intake = &intake_,
                  .status = std::move(parts.status),
                  .explain = std::move(parts.explain)}),
        api_({.loop = parts.loop, .gateway = parts.gateway, .calls = &calls_, .intake = &intake_}),
        calls_(parts.registry->AddGauge("tarn_frontend_active_requests",
                                        "Requests of clients that are under way.")) {}

  InferenceService& service() { return service_; }
  openai::Api& api() { return api_; }
  const ActiveCalls& calls() const { return calls_; }

 private:
  Intake intake_;
  InferenceService service_;
  openai::Api api_;
  ActiveCalls calls_;  // last: a call uses all of the others
};

Frontend::Frontend(const FrontendOptions& options, FrontendParts parts)
    : impl_((CHECK(parts.loop != nullptr && parts.gateway != nullptr && parts.model != nullptr &&
                   parts.status && parts.registry != nullptr),
             std::make_unique<Impl>(options, std::move(parts)))) {}

Frontend::~Frontend() = default;

grpc::Service* Frontend::service() { return &impl_->service(); }

void Frontend::AddRoutes(HttpRouter& router) { impl_->api().AddRoutes(router); }

size_t Frontend::active() const { return impl_->calls().size(); }

}  // namespace tarn::router
