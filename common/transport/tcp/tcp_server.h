#pragma once

// The owner's side: answers the requests of those who know the token, from its regions. Private to
// tcp/.
//
// A connection holds some kilobytes, whatever its peer does: it reads no request for which it has
// no room, and sends straight from the region.

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/transport/tcp/tcp_options.h"
#include "common/transport/tcp/tcp_regions.h"
#include "common/transport/tcp/tcp_socket.h"
#include "common/transport/tcp/tcp_thread.h"
#include "common/transport/tcp/tcp_wire.h"

namespace tarn {

class TcpServer : private TcpThread::Handler {
 public:
  // `regions` outlives it. UNAVAILABLE, INVALID_ARGUMENT: why it cannot listen.
  static absl::StatusOr<std::unique_ptr<TcpServer>> Start(const TcpOptions& options,
                                                          const TcpToken& token,
                                                          TcpRegions& regions);
  // Closes all connections.
  ~TcpServer() override;

  uint16_t port() const { return listener_.port(); }

 private:
  class Connection;

  TcpServer(const TcpOptions& options, const TcpToken& token, TcpRegions& regions,
            TcpSocket listener);
  void OnReady(uint32_t events) override;  // of the listener
  void Tick();

  const TcpOptions options_;
  const TcpToken token_;
  TcpRegions& regions_;
  const TcpSocket listener_;
  // Of the thread.
  absl::flat_hash_map<int, std::unique_ptr<Connection>> connections_;  // by file descriptor
  bool closing_ = false;
  TcpThread thread_{"tarn-tcp-serve"};
};

}  // namespace tarn
