#pragma once

// Threads, sockets and regions of one TcpTransport. Private to tcp/.

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/transport/tcp/tcp_options.h"
#include "common/transport/tcp/tcp_reader.h"
#include "common/transport/tcp/tcp_regions.h"
#include "common/transport/tcp/tcp_server.h"
#include "common/transport/tcp/tcp_thread.h"
#include "common/transport/tcp/tcp_wire.h"

namespace tarn {

class TcpEngine {
 public:
  static absl::StatusOr<std::shared_ptr<TcpEngine>> Create(const TcpOptions& options);
  // Stops.
  ~TcpEngine();
  TcpEngine(const TcpEngine&) = delete;
  TcpEngine& operator=(const TcpEngine&) = delete;

  // Closes all connections, ends all transfers with UNAVAILABLE and joins the threads. Idempotent;
  // not callable on them.
  void Stop();

  // Runs on the reading thread; dropped after Stop.
  void Post(std::function<void(TcpReader&)> command);

  const TcpAddress& address() const { return address_; }
  const std::shared_ptr<TcpRegions>& regions() const { return regions_; }

 private:
  TcpEngine() = default;

  TcpAddress address_;
  // Shared with exports, which may outlive this.
  const std::shared_ptr<TcpRegions> regions_ = std::make_shared<TcpRegions>();
  std::unique_ptr<TcpServer> server_;
  std::unique_ptr<TcpReader> reader_;  // of the thread

  Mutex mutex_;
  std::unique_ptr<TcpThread> thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tarn
