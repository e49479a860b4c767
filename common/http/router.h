#pragma once

// Chooses a handler by method and path.

#include <functional>
#include <map>
#include <string>

#include "common/http/server.h"

namespace tarn {

// Fill it before the server starts; then it is read-only and callable from all threads.
class HttpRouter {
 public:
  using ErrorBody = std::function<std::string(int status, const std::string& message)>;

  // `error_body` makes the JSON of 404 and 405.
  explicit HttpRouter(ErrorBody error_body = JsonErrorBody);

  // `path` is exact, or ends in "/*" and stands for everything below; the longest match wins.
  // A handler of GET also gets HEAD. The same twice CHECK-fails.
  void Handle(const std::string& method, const std::string& path, HttpHandler handler);

  // Calls the handler, or answers 404, or 405 with Allow.
  void Route(HttpRequest request, std::shared_ptr<HttpResponder> responder) const;

 private:
  using ByMethod = std::map<std::string, HttpHandler>;
  const ByMethod* Find(const std::string& path) const;

  const ErrorBody error_body_;
  std::map<std::string, ByMethod> exact_;
  std::map<std::string, ByMethod> below_;  // keyed by the path up to and with the last '/'
};

}  // namespace tarn
