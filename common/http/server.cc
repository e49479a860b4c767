#include "common/http/server.h"

#include <glog/logging.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/string.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/config/parse.h"
#include "common/http/connection.h"

namespace tarn {
namespace {

using asio_tcp = boost::asio::ip::tcp;
using boost::system::error_code;
namespace asio = boost::asio;
using http_internal::Connection;
using http_internal::IoThread;
using http_internal::ServerState;

constexpr std::chrono::milliseconds kAcceptRetry(100);

absl::StatusOr<asio_tcp::acceptor> Listen(asio::io_context& context, const std::string& address) {
  ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(address));
  error_code error;
  asio_tcp::resolver resolver(context);
  const auto found = resolver.resolve(listen.host, std::to_string(listen.port),
                                      asio_tcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError("cannot listen on " + address + ": " + error.message());
  }
  const asio_tcp::endpoint endpoint = *found.begin();
  asio_tcp::acceptor acceptor(context);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(4096, error);
  if (!error) return acceptor;
  return absl::UnavailableError("cannot listen on " + address + ": " + error.message());
}

class Server : public HttpServer {
 public:
  Server(HttpServerOptions options, HttpHandler handler) : state_(std::make_shared<ServerState>()) {
    state_->handler = std::move(handler);
    for (int i = 0; i < std::max(1, options.io_threads); ++i) {
      threads_.push_back(std::make_unique<Thread>());
    }
    state_->options = std::make_shared<const HttpServerOptions>(std::move(options));
  }

  ~Server() override { Stop(absl::ZeroDuration()); }

  absl::Status Start() {
    ASSIGN_OR_RETURN(asio_tcp::acceptor acceptor,
                     Listen(*threads_[0]->io.context, state_->options->listen));
    acceptor_.emplace(std::move(acceptor));
    retry_.emplace(*threads_[0]->io.context);
    const asio_tcp::endpoint endpoint = acceptor_->local_endpoint();
    port_ = endpoint.port();
    address_ = HostPort{endpoint.address().to_string(), endpoint.port()}.ToString();
    Accept();
    for (auto& thread : threads_) {
      thread->thread = std::thread([&io = thread->io] { io.context->run(); });
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  std::string address() const override { return address_; }
  size_t connection_count() const override { return state_->connection_count.load(); }

  void Stop(absl::Duration grace) override {
    if (stopped_) return;
    stopped_ = true;
    if (!acceptor_.has_value()) return;
    OnAll([this](IoThread& io) {
      if (&io == &threads_[0]->io) {
        error_code ignored;
        acceptor_->close(ignored);
        retry_->cancel();
      }
      io.draining = true;
      ForEachConnection(io, [](Connection& connection) { connection.Drain(); });
    });
    WaitForConnections(grace);
    OnAll([](IoThread& io) {
      ForEachConnection(io, [](Connection& connection) { connection.Abort(); });
    });
    for (auto& thread : threads_) thread->work.reset();
    for (auto& thread : threads_) thread->thread.join();
  }

 private:
  struct Thread {
    IoThread io;
    asio::executor_work_guard<asio::io_context::executor_type> work{io.context->get_executor()};
    std::thread thread;
  };

  void Accept() {
    IoThread& io = threads_[next_thread_++ % threads_.size()]->io;
    acceptor_->async_accept(*io.context, [this, &io](error_code error, asio_tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor_->is_open()) return;
      if (error) return RetryAccept(error);
      Take(std::move(socket), io);
      Accept();
    });
  }

  // Out of file descriptors, most likely: connections that end give some back.
  void RetryAccept(error_code error) {
    LOG_EVERY_N(WARNING, 100) << "HTTP: cannot accept a connection: " << error.message();
    retry_->expires_after(kAcceptRetry);
    retry_->async_wait([this](error_code cancelled) {
      if (!cancelled) Accept();
    });
  }

  void Take(asio_tcp::socket socket, IoThread& io) {
    if (state_->connection_count.fetch_add(1) >= state_->options->max_connections) {
      state_->connection_count.fetch_sub(1);
      return TurnAway(std::move(socket));
    }
    // To its own thread, where the connection stays.
    asio::post(*io.context, [state = state_, &io, socket = std::move(socket)]() mutable {
      std::make_shared<Connection>(std::move(socket), std::move(state), io)->Start();
    });
  }

  void TurnAway(asio_tcp::socket socket) {
    const auto body = state_->options->error_body ? state_->options->error_body : JsonErrorBody;
    const std::string text =
        body(503, "the server has its limit of " +
                      std::to_string(state_->options->max_connections) + " connections");
    const std::string answer =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
        "Retry-After: 1\r\nContent-Type: " +
        state_->options->error_content_type + "\r\nContent-Length: " + std::to_string(text.size()) +
        "\r\n\r\n" + text;
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(answer), ignored);
    socket.shutdown(asio_tcp::socket::shutdown_send, ignored);
  }

  // Runs `task` on each I/O thread, without waiting for it.
  void OnAll(const std::function<void(IoThread&)>& task) {
    for (auto& thread : threads_) {
      asio::post(*thread->io.context, [task, &io = thread->io] { task(io); });
    }
  }

  static void ForEachConnection(IoThread& io, const std::function<void(Connection&)>& visit) {
    // A copy: visiting may end a connection.
    const auto connections = io.connections;
    for (const auto& connection : connections) visit(*connection);
  }

  void WaitForConnections(absl::Duration grace) {
    const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(grace);
    while (connection_count() > 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  const std::shared_ptr<ServerState> state_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::optional<asio_tcp::acceptor> acceptor_;  // like retry_: on the first I/O thread
  std::optional<asio::steady_timer> retry_;
  size_t next_thread_ = 0;
  int port_ = 0;
  std::string address_;
  bool stopped_ = false;
};

}  // namespace

const std::string* HttpRequest::FindHeader(const std::string& name) const {
  for (const auto& [key, value] : headers) {
    if (boost::beast::iequals(key, name)) return &value;
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              HttpHandler handler) {
  auto server = std::make_unique<Server>(std::move(options), std::move(handler));
  RETURN_IF_ERROR(server->Start());
  return std::unique_ptr<HttpServer>(std::move(server));
}

std::string JsonErrorBody(int status, const std::string& message) {
  const nlohmann::json json = {{"error", {{"message", message}, {"code", status}}}};
  // The message may quote bytes that are no UTF-8.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace tarn
