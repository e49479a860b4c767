#pragma once

// What a node's peers ask of it (proto/kvstore.proto, service Pool): the handshake, and blocks that
// only it can read.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>
#include <utility>

#include "common/rpc/unary.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/node_pool.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

class PoolService : public v1::Pool::CallbackService {
 public:
  // Brings a block into memory and says where: NodePool::Stage.
  using StageBlock =
      std::function<void(const BlockKey& key, absl::Time deadline, NodePool::StageDone done)>;

  // `loop` outlives the RPC server, this object too. `stage` is called on it.
  PoolService(EventLoop* loop, StageBlock stage, PeerAddress address);

  // Who this node is; loop-only. Before that handshakes are answered with UNAVAILABLE.
  void SetSelf(v1::NodeInfo self) { self_ = std::move(self); }

  grpc::ServerUnaryReactor* Handshake(grpc::CallbackServerContext* context,
                                      const v1::HandshakeRequest* request,
                                      v1::HandshakeResponse* response) override;
  grpc::ServerUnaryReactor* Stage(grpc::CallbackServerContext* context,
                                  const v1::StageRequest* request,
                                  v1::StageResponse* response) override;

 private:
  absl::StatusOr<v1::HandshakeResponse> Answer(const v1::NodeInfo& caller) const;

  void StartStaging(const v1::StageRequest& request, UnaryReply<v1::StageResponse> reply);

  EventLoop* const loop_;
  const StageBlock stage_;
  const PeerAddress address_;
  v1::NodeInfo self_;  // loop only
};

}  // namespace tarn::kvstore
