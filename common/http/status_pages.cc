#include "common/http/status_pages.h"

#include <utility>

#include "common/base/status.h"

namespace tarn {

void AddStatusPages(HttpRouter& router, const metrics::Registry& registry,
                    std::function<absl::Status()> ready) {
  const HttpHeaders text = {{"Content-Type", "text/plain; charset=utf-8"}};
  router.Handle("GET", "/health", [text](HttpRequest, std::shared_ptr<HttpResponder> responder) {
    responder->Reply(200, text, "ok\n");
  });
  router.Handle(
      "GET", "/ready",
      [text, ready = std::move(ready)](HttpRequest, std::shared_ptr<HttpResponder> responder) {
        const absl::Status status = ready();
        responder->Reply(status.ok() ? 200 : 503, text,
                         (status.ok() ? "ready" : Message(status)) + "\n");
      });
  router.Handle("GET", "/metrics",
                [&registry](HttpRequest, std::shared_ptr<HttpResponder> responder) {
                  responder->Reply(200, {{"Content-Type", metrics::Registry::kContentType}},
                                   registry.Expose());
                });
}

}  // namespace tarn
