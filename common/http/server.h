#pragma once

// An asynchronous HTTP/1.1 server: a few I/O threads, thousands of open streams.
//
// Boost.Beast parses inside and does not show here. Requests of one connection are handled one at
// a time, in order; a pipelined request waits for its turn.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tarn {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/v1/models", as sent, without the query
  std::string query;   // what follows '?', as sent
  HttpHeaders headers;
  std::string body;

  // The first header of this name, letter case ignored; null if there is none.
  const std::string* FindHeader(const std::string& name) const;
};

// Answers one request: either Reply, or StartStream, Writes and End. Thread-safe; nothing blocks.
// When the last reference goes before the answer is complete, the client gets a 500 or, in the
// middle of a stream, a broken connection.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;

  // The whole answer. Content-Length is added. False: the client is gone or has its answer.
  virtual bool Reply(int status, HttpHeaders headers, std::string body) = 0;

  // Sends the head of an answer of unknown length (chunked encoding).
  virtual bool StartStream(int status, HttpHeaders headers) = 0;
  // Queues the next part. False: the client is gone, or it reads so slowly that more than
  // max_pending_bytes are waiting: then the connection is cut.
  virtual bool Write(std::string chunk) = 0;
  virtual bool End() = 0;

  // `callback` runs once on an I/O thread if the client hangs up, is cut, or the server stops
  // before the answer is complete; at once if that has happened. One callback: a later one
  // replaces it. It is dropped when the answer is complete. A client that shuts down its sending
  // side counts as gone.
  virtual void OnClose(std::function<void()> callback) = 0;

  // Bytes of the answer that the kernel has not taken yet.
  virtual size_t pending_bytes() const = 0;
};

// Runs on an I/O thread and must not block.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpResponder>)>;

struct HttpServerOptions {
  std::string listen = "127.0.0.1:0";  // "address:port"; port 0 picks a free one
  int io_threads = 1;
  size_t max_header_bytes = 32 << 10;
  size_t max_body_bytes = 8 << 20;
  size_t max_connections = 16384;                     // one more gets 503
  size_t max_pending_bytes = 4 << 20;                 // of a stream; a single Reply may be larger
  absl::Duration header_timeout = absl::Seconds(10);  // from the first byte; then 408
  absl::Duration body_timeout = absl::Seconds(60);    // from the end of the head; then 408
  absl::Duration idle_timeout = absl::Seconds(120);   // between requests; then closed
  absl::Duration write_timeout = absl::Seconds(60);   // without progress; then cut
  // Body and content type of errors that the server itself answers (400, 408, 413, 431, 500, 503).
  std::function<std::string(int status, const std::string& message)> error_body;
  std::string error_content_type = "application/json";
};

class HttpServer {
 public:
  // Binds and serves. UNAVAILABLE names the address and the reason, such as a port in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options,
                                                           HttpHandler handler);
  // Stop(ZeroDuration) if that has not happened.
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  // The bound "host:port".
  virtual std::string address() const = 0;
  virtual size_t connection_count() const = 0;

  // Takes no new connections and requests, gives running answers `grace` to end, cuts the rest
  // (OnClose runs), and joins the threads. Responders stay safe to use. Not from an I/O thread.
  virtual void Stop(absl::Duration grace) = 0;
};

// {"error": {"message": ..., "code": status}}: the default of error_body.
std::string JsonErrorBody(int status, const std::string& message);

}  // namespace tarn
