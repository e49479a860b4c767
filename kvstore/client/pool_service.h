#pragma once

// The server's side of the handshake between nodes (proto/kvstore.proto, service Pool).

#include <grpcpp/grpcpp.h>

#include <string>
#include <utility>

#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

class PoolService : public v1::Pool::CallbackService {
 public:
  // `loop` outlives the RPC server, this object too.
  PoolService(EventLoop* loop, PeerAddress address);

  // Who this node is; loop-only. Before that handshakes are answered with UNAVAILABLE.
  void SetSelf(v1::NodeInfo self) { self_ = std::move(self); }

  grpc::ServerUnaryReactor* Handshake(grpc::CallbackServerContext* context,
                                      const v1::HandshakeRequest* request,
                                      v1::HandshakeResponse* response) override;

 private:
  absl::StatusOr<v1::HandshakeResponse> Answer(const v1::NodeInfo& caller) const;

  EventLoop* const loop_;
  const PeerAddress address_;
  v1::NodeInfo self_;  // loop only
};

}  // namespace tarn::kvstore
