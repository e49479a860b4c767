#pragma once

// The answer to one request, between the threads that make it and the connection that sends it.

#include <functional>
#include <memory>
#include <string>

#include "common/base/mutex.h"
#include "common/http/server.h"

namespace tarn::http_internal {

// The way to the connection. Callable from any thread, also when the connection is gone; what is
// asked for happens later, on the I/O thread.
class Wire {
 public:
  virtual ~Wire() = default;
  // The exchange has something to send.
  virtual void PostFlush() = 0;
  // Close the connection at once.
  virtual void PostAbort() = 0;
};

// Thread-safe. Formats the answer; the connection takes it away in pieces and sends it.
class Exchange {
 public:
  struct Options {
    size_t max_pending_bytes = 0;
    bool http_1_0 = false;   // no chunked encoding: the end of the connection ends a stream
    bool head_only = false;  // HEAD: no body
    bool keep_alive = true;
  };

  Exchange(const Options& options, std::unique_ptr<Wire> wire);

  // The responder's side; see HttpResponder.
  bool Reply(int status, const HttpHeaders& headers, const std::string& body);
  bool StartStream(int status, const HttpHeaders& headers);
  bool Write(const std::string& chunk);
  bool End();
  void OnClose(std::function<void()> callback);
  size_t pending_bytes() const;
  // Nobody will go on with the answer.
  void Abandon(const HttpServerOptions& options);

  // The connection's side. Take appends what is to be sent to `out`; it counts as pending until
  // Sent. Take first, then ask complete(): after it, nothing more comes.
  void Take(std::string& out);
  void Sent(size_t bytes);
  bool complete() const;
  // Whether another request may follow on the connection.
  bool keep_alive() const;
  // The connection is gone. Returns the owner's callback if the answer was not complete.
  std::function<void()> Close();

 private:
  enum class State { kWaiting, kStreaming, kComplete, kClosed };

  void AppendHead(int status, const HttpHeaders& headers, const std::string& framing)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::unique_ptr<Wire> wire_;
  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kWaiting;
  bool keep_alive_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;  // a flush is posted and has not taken yet
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;    // too much was pending
  std::string out_ ABSL_GUARDED_BY(mutex_);
  size_t sending_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void()> on_close_ ABSL_GUARDED_BY(mutex_);
};

// The handle that request handlers get. When it goes, the exchange is abandoned.
std::shared_ptr<HttpResponder> MakeResponder(std::shared_ptr<Exchange> exchange,
                                             std::shared_ptr<const HttpServerOptions> options);

// The answer that the server itself gives to a bad request.
void ReplyError(Exchange& exchange, const HttpServerOptions& options, int status,
                const std::string& message);

}  // namespace tarn::http_internal
