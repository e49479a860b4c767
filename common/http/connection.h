#pragma once

// One HTTP/1.1 connection on its I/O thread.

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "common/http/exchange.h"
#include "common/http/server.h"

namespace tarn::http_internal {

namespace asio = boost::asio;
namespace beast = boost::beast;

class Connection;

// What all connections of a server share.
struct ServerState {
  std::shared_ptr<const HttpServerOptions> options;
  HttpHandler handler;
  std::atomic<size_t> connection_count{0};
};

// An I/O thread's connections; used on that thread only. The context is shared, so that a
// responder may still post to it after the server is gone.
struct IoThread {
  std::shared_ptr<asio::io_context> context = std::make_shared<asio::io_context>(1);
  absl::flat_hash_set<std::shared_ptr<Connection>> connections;
  bool draining = false;
};

// Owned by its thread's set until Abort, and by pending operations. All methods run on the I/O
// thread.
//
//   idle -> head -> body -> answering -> idle | lingering -> closed
//
// A bad request goes from head or body to answering, with an error. A read is always pending, also
// while answering: it notices the client hanging up, and collects what is pipelined, up to a bound.
// Lingering reads on for a moment after the last answer: closing a socket with unread input resets
// the connection, and the client would lose the answer.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::ip::tcp::socket socket, std::shared_ptr<ServerState> server, IoThread& thread);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Start();
  // Closes now if nothing is under way, else after the answer.
  void Drain();
  // Closes now, and tells the owner of the answer.
  void Abort();
  // Sends what the exchange has.
  void Flush();

 private:
  enum class State { kIdle, kHead, kBody, kAnswering, kLingering, kClosed };
  using Parser = beast::http::request_parser<beast::http::string_body>;
  using SteadyClock = std::chrono::steady_clock;

  void BeginRequest();
  void Read();
  void OnRead(beast::error_code error, size_t count);
  void OnEnd();
  void Parse();
  void OnHead();
  void Dispatch();
  HttpRequest TakeRequest();
  void MakeExchange(bool keep_alive);
  void RefuseFor(beast::error_code error);
  void Refuse(int status, const std::string& message);

  void Send();
  void OnSent(beast::error_code error, size_t count);
  void AnswerComplete();
  void Linger();

  // OnDeadline runs when `timeout` has passed, unless this is called again before.
  void SetDeadline(absl::Duration timeout);
  void WaitForDeadline();
  void OnDeadline();

  asio::ip::tcp::socket socket_;
  const std::shared_ptr<ServerState> server_;
  IoThread& thread_;
  State state_ = State::kIdle;

  std::string incoming_;      // what the pending read fills
  beast::flat_buffer input_;  // what has come and is not parsed
  std::optional<Parser> parser_;
  bool head_seen_ = false;
  bool reading_ = false;
  bool discard_input_ = false;  // what still comes is of no interest

  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<Exchange> output_owner_;  // none: an interim answer
  std::string output_;                      // being sent, from output_at_
  size_t output_at_ = 0;
  bool sending_ = false;

  asio::steady_timer timer_;
  SteadyClock::time_point deadline_ = SteadyClock::time_point::max();
  bool timing_ = false;
};

}  // namespace tarn::http_internal
