#include "common/http/connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/core/string.hpp>
#include <utility>

#include "common/http/exchange.h"

namespace tarn::http_internal {
namespace {

namespace http = boost::beast::http;

constexpr size_t kReadBytes = 4 << 10;       // thousands of connections wait with this much
constexpr size_t kBodyReadBytes = 64 << 10;  // while a body comes in
constexpr absl::Duration kLinger = absl::Seconds(2);

class ConnectionWire : public Wire {
 public:
  ConnectionWire(std::weak_ptr<Connection> connection, std::shared_ptr<asio::io_context> context)
      : connection_(std::move(connection)), context_(std::move(context)) {}

  void PostFlush() override {
    asio::post(*context_, [weak = connection_] {
      if (auto connection = weak.lock()) connection->Flush();
    });
  }
  void PostAbort() override {
    asio::post(*context_, [weak = connection_] {
      if (auto connection = weak.lock()) connection->Abort();
    });
  }

 private:
  const std::weak_ptr<Connection> connection_;
  const std::shared_ptr<asio::io_context> context_;
};

std::string ToString(beast::string_view text) { return std::string(text.data(), text.size()); }

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, std::shared_ptr<ServerState> server,
                       IoThread& thread)
    : socket_(std::move(socket)),
      server_(std::move(server)),
      thread_(thread),
      timer_(socket_.get_executor()) {}

Connection::~Connection() { server_->connection_count.fetch_sub(1); }

void Connection::Start() {
  thread_.connections.insert(shared_from_this());
  beast::error_code ignored;
  // Tokens leave as they come.
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  BeginRequest();
}

void Connection::BeginRequest() {
  if (thread_.draining) return Abort();
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(server_->options->max_header_bytes));
  parser_->body_limit(server_->options->max_body_bytes);
  head_seen_ = false;
  state_ = State::kIdle;
  SetDeadline(server_->options->idle_timeout);
  if (input_.size() > 0) {
    Parse();
  } else {
    input_.shrink_to_fit();
    Read();
  }
}

void Connection::Read() {
  if (reading_ || state_ == State::kClosed) return;
  reading_ = true;
  incoming_.resize(state_ == State::kBody ? kBodyReadBytes : kReadBytes);
  if (incoming_.capacity() > 2 * incoming_.size()) incoming_.shrink_to_fit();
  socket_.async_read_some(asio::buffer(incoming_),
                          [self = shared_from_this()](beast::error_code error, size_t count) {
                            self->OnRead(error, count);
                          });
}

void Connection::OnRead(beast::error_code error, size_t count) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (error) return OnEnd();
  if (discard_input_) return Read();
  input_.commit(asio::buffer_copy(input_.prepare(count), asio::buffer(incoming_, count)));
  if (state_ != State::kAnswering) return Parse();
  // Pipelined requests past the bound stay with the kernel.
  if (input_.size() < server_->options->max_header_bytes) Read();
}

void Connection::OnEnd() {
  // A refused client may have said all it had; it still gets its answer.
  if (discard_input_ && state_ == State::kAnswering) return;
  Abort();
}

void Connection::Parse() {
  if (state_ == State::kIdle) {
    state_ = State::kHead;
    SetDeadline(server_->options->header_timeout);
  }
  beast::error_code error;
  const size_t used = parser_->put(input_.data(), error);
  input_.consume(used);
  if (error && error != http::error::need_more) return RefuseFor(error);
  if (parser_->is_header_done() && !head_seen_) OnHead();
  if (parser_->is_done()) return Dispatch();
  Read();
}

void Connection::OnHead() {
  head_seen_ = true;
  state_ = State::kBody;
  SetDeadline(server_->options->body_timeout);
  const bool expects = beast::iequals(parser_->get()[http::field::expect], "100-continue");
  if (!expects || parser_->is_done() || parser_->get().version() < 11 || sending_) return;
  output_ = "HTTP/1.1 100 Continue\r\n\r\n";
  Send();
}

void Connection::Dispatch() {
  MakeExchange(parser_->keep_alive());
  state_ = State::kAnswering;
  SetDeadline(absl::InfiniteDuration());
  HttpRequest request = TakeRequest();
  parser_.reset();
  Read();
  server_->handler(std::move(request), MakeResponder(exchange_, server_->options));
}

HttpRequest Connection::TakeRequest() {
  auto& message = parser_->get();
  HttpRequest request;
  request.method = ToString(message.method_string());
  const std::string target = ToString(message.target());
  const size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string::npos) request.query = target.substr(question + 1);
  for (const auto& field : message) {
    request.headers.emplace_back(ToString(field.name_string()), ToString(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

void Connection::MakeExchange(bool keep_alive) {
  Exchange::Options options;
  options.max_pending_bytes = server_->options->max_pending_bytes;
  options.keep_alive = keep_alive && !thread_.draining;
  if (parser_->is_header_done()) {
    options.http_1_0 = parser_->get().version() < 11;
    options.head_only = parser_->get().method() == http::verb::head;
  }
  exchange_ = std::make_shared<Exchange>(
      options, std::make_unique<ConnectionWire>(weak_from_this(), thread_.context));
}

void Connection::RefuseFor(beast::error_code error) {
  if (error == http::error::header_limit) {
    return Refuse(431, "the request's head is over the limit of " +
                           std::to_string(server_->options->max_header_bytes) + " bytes");
  }
  if (error == http::error::body_limit) {
    return Refuse(413, "the request's body is over the limit of " +
                           std::to_string(server_->options->max_body_bytes) + " bytes");
  }
  Refuse(400, "this is no valid HTTP request: " + error.message());
}

void Connection::Refuse(int status, const std::string& message) {
  MakeExchange(/*keep_alive=*/false);
  parser_.reset();
  state_ = State::kAnswering;
  SetDeadline(absl::InfiniteDuration());
  discard_input_ = true;
  input_.clear();
  input_.shrink_to_fit();
  ReplyError(*exchange_, *server_->options, status, message);
  Read();
}

void Connection::Flush() {
  if (sending_ || exchange_ == nullptr || state_ == State::kClosed) return;
  exchange_->Take(output_);
  if (output_.empty()) {
    if (exchange_->complete()) AnswerComplete();
    return;
  }
  output_owner_ = exchange_;
  Send();
}

void Connection::Send() {
  sending_ = true;
  if (state_ == State::kAnswering) SetDeadline(server_->options->write_timeout);
  socket_.async_write_some(asio::buffer(output_) + output_at_,
                           [self = shared_from_this()](beast::error_code error, size_t count) {
                             self->OnSent(error, count);
                           });
}

void Connection::OnSent(beast::error_code error, size_t count) {
  sending_ = false;
  if (state_ == State::kClosed) return;
  if (error) return Abort();
  if (output_owner_) output_owner_->Sent(count);
  output_at_ += count;
  if (output_at_ < output_.size()) return Send();
  output_ = std::string();
  output_at_ = 0;
  output_owner_.reset();
  if (state_ == State::kAnswering) SetDeadline(absl::InfiniteDuration());
  Flush();
}

void Connection::AnswerComplete() {
  const bool keep_alive = exchange_->keep_alive() && !discard_input_ && !thread_.draining;
  exchange_.reset();
  if (keep_alive) {
    BeginRequest();
  } else {
    Linger();
  }
}

void Connection::Linger() {
  state_ = State::kLingering;
  discard_input_ = true;
  input_.clear();
  beast::error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) return Abort();
  SetDeadline(kLinger);
  Read();
}

void Connection::Drain() {
  if (state_ != State::kAnswering && state_ != State::kLingering) Abort();
}

void Connection::Abort() {
  if (state_ == State::kClosed) return;
  const std::shared_ptr<Connection> alive = shared_from_this();
  thread_.connections.erase(alive);
  state_ = State::kClosed;
  beast::error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  const std::shared_ptr<Exchange> exchange = std::move(exchange_);
  if (exchange == nullptr) return;
  if (const std::function<void()> callback = exchange->Close()) callback();
}

void Connection::SetDeadline(absl::Duration timeout) {
  const auto never = SteadyClock::time_point::max();
  deadline_ = timeout == absl::InfiniteDuration()
                  ? never
                  : SteadyClock::now() + absl::ToChronoNanoseconds(timeout);
  // A timer that fires too early finds the later deadline and waits on: moving it each time
  // would cost more than the writes it guards.
  if (deadline_ != never && (!timing_ || timer_.expiry() > deadline_)) WaitForDeadline();
}

void Connection::WaitForDeadline() {
  timing_ = true;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this()](beast::error_code error) {
    auto self = weak.lock();
    if (error || self == nullptr || self->state_ == State::kClosed) return;
    self->timing_ = false;
    if (self->deadline_ == SteadyClock::time_point::max()) return;
    if (self->deadline_ > SteadyClock::now()) return self->WaitForDeadline();
    self->OnDeadline();
  });
}

void Connection::OnDeadline() {
  switch (state_) {
    case State::kHead:
      return Refuse(408, "the request's head took longer than " +
                             absl::FormatDuration(server_->options->header_timeout));
    case State::kBody:
      return Refuse(408, "the request's body took longer than " +
                             absl::FormatDuration(server_->options->body_timeout));
    default:
      Abort();
  }
}

}  // namespace tarn::http_internal
