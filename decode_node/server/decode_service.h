#pragma once

// The gRPC service: each router's stream becomes a session on the loop.

#include <grpcpp/grpcpp.h>

#include "common/rpc/server_stream.h"
#include "common/runtime/event_loop.h"
#include "decode_node/session/decode_sessions.h"
#include "proto/decode.grpc.pb.h"

namespace tarn::decode {

class DecodeService : public v1::Decode::CallbackService {
 public:
  // Both outlive the RPC server's shutdown.
  DecodeService(EventLoop* loop, DecodeSessions* sessions) : loop_(loop), sessions_(sessions) {}

  grpc::ServerBidiReactor<v1::DecodeCommand, v1::DecodeEvents>* Session(
      grpc::CallbackServerContext* context) override {
    return AcceptStream<v1::DecodeCommand, v1::DecodeEvents>(
        context, *loop_, StreamOptions(),
        [sessions = sessions_](std::shared_ptr<DecodeSessions::Events> stream) {
          return sessions->Open(std::move(stream));
        });
  }

 private:
  EventLoop* const loop_;
  DecodeSessions* const sessions_;
};

}  // namespace tarn::decode
