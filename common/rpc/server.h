#pragma once

// A gRPC server with what every tarn server has: health checking (grpc.health.v1), reflection,
// a bound on message size.

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tarn {

struct RpcServerOptions {
  // "host:port"; port 0 picks a free one.
  std::string listen = "127.0.0.1:0";
  int max_message_bytes = 64 << 20;
};

// Thread-safe. Services are borrowed and must outlive the server.
class RpcServer {
 public:
  // Binds and serves. Health says NOT_SERVING until SetServing(true). UNAVAILABLE names the
  // address and the reason, such as a port in use; INVALID_ARGUMENT: the address makes no sense.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options, const std::vector<grpc::Service*>& services);

  // Shutdown(ZeroDuration) if that has not happened.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const { return port_; }
  // The bound "host:port".
  const std::string& address() const { return address_; }

  // What the health service answers for the whole server.
  void SetServing(bool serving);

  // Takes no new calls, lets the running ones end for `grace`, then cancels them. Blocks until
  // all are gone: loops that calls post to must still run, or the calls must end by themselves.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address, int port);

  std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  const int port_;
};

}  // namespace tarn
