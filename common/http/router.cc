#include "common/http/router.h"

#include <glog/logging.h>

#include <utility>

namespace tarn {

HttpRouter::HttpRouter(ErrorBody error_body) : error_body_(std::move(error_body)) {}

void HttpRouter::Handle(const std::string& method, const std::string& path, HttpHandler handler) {
  const bool below = path.size() >= 2 && path.compare(path.size() - 2, 2, "/*") == 0;
  ByMethod& methods = below ? below_[path.substr(0, path.size() - 1)] : exact_[path];
  CHECK(methods.emplace(method, std::move(handler)).second)
      << method << " " << path << " has a handler already";
}

const HttpRouter::ByMethod* HttpRouter::Find(const std::string& path) const {
  const auto exact = exact_.find(path);
  if (exact != exact_.end()) return &exact->second;
  for (size_t slash = path.rfind('/'); slash != std::string::npos;
       slash = slash == 0 ? std::string::npos : path.rfind('/', slash - 1)) {
    const auto below = below_.find(path.substr(0, slash + 1));
    if (below != below_.end()) return &below->second;
  }
  return nullptr;
}

void HttpRouter::Route(HttpRequest request, std::shared_ptr<HttpResponder> responder) const {
  const HttpHeaders json = {{"Content-Type", "application/json"}};
  const ByMethod* methods = Find(request.path);
  if (methods == nullptr) {
    responder->Reply(404, json, error_body_(404, "there is nothing at " + request.path));
    return;
  }
  auto handler = methods->find(request.method);
  if (handler == methods->end() && request.method == "HEAD") handler = methods->find("GET");
  if (handler != methods->end()) {
    handler->second(std::move(request), std::move(responder));
    return;
  }
  std::string allowed;
  for (const auto& [method, unused] : *methods) allowed += (allowed.empty() ? "" : ", ") + method;
  HttpHeaders headers = json;
  headers.emplace_back("Allow", allowed);
  responder->Reply(
      405, std::move(headers),
      error_body_(405, request.path + " takes " + allowed + ", not " + request.method));
}

}  // namespace tarn
