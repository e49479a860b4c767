#include "common/http/exchange.h"

#include <glog/logging.h>

#include <boost/beast/http/status.hpp>
#include <cstdio>
#include <ctime>
#include <utility>

namespace tarn::http_internal {
namespace {

std::string StatusLine(int status) {
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason.data(), reason.size()) +
         "\r\n";
}

std::string DateLine() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[64];
  // Names of days and months are English in the C locale, which no tarn process leaves.
  const size_t size =
      std::strftime(text, sizeof(text), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
  return std::string(text, size);
}

// A line break inside a header would let its author write further headers or a second answer.
bool IsSafe(const std::string& text) {
  return text.find_first_of(std::string("\r\n\0", 3)) == std::string::npos;
}

bool MayHaveBody(int status) { return status >= 200 && status != 204 && status != 304; }

std::string ChunkSize(size_t size) {
  char text[20];
  std::snprintf(text, sizeof(text), "%zx\r\n", size);
  return text;
}

class Responder : public HttpResponder {
 public:
  Responder(std::shared_ptr<Exchange> exchange, std::shared_ptr<const HttpServerOptions> options)
      : exchange_(std::move(exchange)), options_(std::move(options)) {}
  ~Responder() override { exchange_->Abandon(*options_); }

  bool Reply(int status, HttpHeaders headers, std::string body) override {
    return exchange_->Reply(status, headers, body);
  }
  bool StartStream(int status, HttpHeaders headers) override {
    return exchange_->StartStream(status, headers);
  }
  bool Write(std::string chunk) override { return exchange_->Write(chunk); }
  bool End() override { return exchange_->End(); }
  void OnClose(std::function<void()> callback) override { exchange_->OnClose(std::move(callback)); }
  size_t pending_bytes() const override { return exchange_->pending_bytes(); }

 private:
  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<const HttpServerOptions> options_;
};

}  // namespace

Exchange::Exchange(const Options& options, std::unique_ptr<Wire> wire)
    : options_(options), wire_(std::move(wire)), keep_alive_(options.keep_alive) {}

bool Exchange::Reply(int status, const HttpHeaders& headers, const std::string& body) {
  std::function<void()> dropped;  // destroyed without the lock: it may hold anything
  MutexLock lock(mutex_);
  if (state_ != State::kWaiting) return false;
  const bool has_body = MayHaveBody(status);
  AppendHead(status, headers,
             has_body ? "Content-Length: " + std::to_string(body.size()) + "\r\n" : "");
  if (has_body && !options_.head_only) out_ += body;
  state_ = State::kComplete;
  dropped = std::move(on_close_);
  on_close_ = nullptr;
  Wake();
  return true;
}

bool Exchange::StartStream(int status, const HttpHeaders& headers) {
  MutexLock lock(mutex_);
  if (state_ != State::kWaiting) return false;
  if (options_.http_1_0) keep_alive_ = false;
  AppendHead(status, headers, options_.http_1_0 ? "" : "Transfer-Encoding: chunked\r\n");
  state_ = State::kStreaming;
  Wake();
  return true;
}

bool Exchange::Write(const std::string& chunk) {
  MutexLock lock(mutex_);
  if (state_ != State::kStreaming || cut_) return false;
  // An empty chunk would end the body.
  if (chunk.empty() || options_.head_only) return true;
  const size_t pending = out_.size() + sending_;
  if (pending > 0 && pending + chunk.size() > options_.max_pending_bytes) {
    cut_ = true;
    out_ = std::string();
    wire_->PostAbort();
    return false;
  }
  if (!options_.http_1_0) out_ += ChunkSize(chunk.size());
  out_ += chunk;
  if (!options_.http_1_0) out_ += "\r\n";
  Wake();
  return true;
}

bool Exchange::End() {
  std::function<void()> dropped;
  MutexLock lock(mutex_);
  if (state_ != State::kStreaming || cut_) return false;
  if (!options_.http_1_0 && !options_.head_only) out_ += "0\r\n\r\n";
  state_ = State::kComplete;
  dropped = std::move(on_close_);
  on_close_ = nullptr;
  Wake();
  return true;
}

void Exchange::OnClose(std::function<void()> callback) {
  {
    MutexLock lock(mutex_);
    if (state_ == State::kComplete) return;
    if (state_ != State::kClosed) {
      std::swap(on_close_, callback);
      return;
    }
  }
  if (callback) callback();
}

size_t Exchange::pending_bytes() const {
  MutexLock lock(mutex_);
  return out_.size() + sending_;
}

void Exchange::Abandon(const HttpServerOptions& options) {
  bool untouched = false;
  {
    MutexLock lock(mutex_);
    untouched = state_ == State::kWaiting;
    if (state_ == State::kStreaming && !cut_) wire_->PostAbort();
  }
  if (untouched) ReplyError(*this, options, 500, "the server dropped the request");
}

void Exchange::Take(std::string& out) {
  MutexLock lock(mutex_);
  woken_ = false;
  sending_ += out_.size();
  if (out.empty()) {
    out.swap(out_);
  } else {
    out += out_;
    out_.clear();
  }
}

void Exchange::Sent(size_t bytes) {
  MutexLock lock(mutex_);
  sending_ -= bytes;
}

bool Exchange::complete() const {
  MutexLock lock(mutex_);
  return state_ == State::kComplete && out_.empty();
}

bool Exchange::keep_alive() const {
  MutexLock lock(mutex_);
  return keep_alive_;
}

std::function<void()> Exchange::Close() {
  MutexLock lock(mutex_);
  state_ = State::kClosed;
  out_ = std::string();
  sending_ = 0;
  std::function<void()> callback = std::move(on_close_);
  on_close_ = nullptr;
  return callback;
}

void Exchange::AppendHead(int status, const HttpHeaders& headers, const std::string& framing) {
  out_ += StatusLine(status);
  out_ += DateLine();
  for (const auto& [name, value] : headers) {
    if (!IsSafe(name) || !IsSafe(value)) {
      LOG(ERROR) << "Left out a header with a line break in it: " << name;
      continue;
    }
    out_ += name + ": " + value + "\r\n";
  }
  out_ += framing;
  if (!keep_alive_) {
    out_ += "Connection: close\r\n";
  } else if (options_.http_1_0) {
    out_ += "Connection: keep-alive\r\n";
  }
  out_ += "\r\n";
}

void Exchange::Wake() {
  if (woken_) return;
  woken_ = true;
  wire_->PostFlush();
}

std::shared_ptr<HttpResponder> MakeResponder(std::shared_ptr<Exchange> exchange,
                                             std::shared_ptr<const HttpServerOptions> options) {
  return std::make_shared<Responder>(std::move(exchange), std::move(options));
}

void ReplyError(Exchange& exchange, const HttpServerOptions& options, int status,
                const std::string& message) {
  const std::string body =
      options.error_body ? options.error_body(status, message) : JsonErrorBody(status, message);
  exchange.Reply(status, {{"Content-Type", options.error_content_type}}, body);
}

}  // namespace tarn::http_internal
