#pragma once

// The gRPC service: each router's stream becomes a session on the loop.

#include <grpcpp/grpcpp.h>

#include "common/rpc/server_stream.h"
#include "common/runtime/event_loop.h"
#include "prefill_node/session/prefill_sessions.h"
#include "proto/prefill.grpc.pb.h"

namespace tarn::prefill {

class PrefillService : public v1::Prefill::CallbackService {
 public:
  // Both outlive the RPC server's shutdown.
  PrefillService(EventLoop* loop, PrefillSessions* sessions) : loop_(loop), sessions_(sessions) {}

  grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvents>* Session(
      grpc::CallbackServerContext* context) override {
    return AcceptStream<v1::PrefillCommand, v1::PrefillEvents>(
        context, *loop_, StreamOptions(),
        [sessions = sessions_](std::shared_ptr<PrefillSessions::Events> stream) {
          return sessions->Open(std::move(stream));
        });
  }

 private:
  EventLoop* const loop_;
  PrefillSessions* const sessions_;
};

}  // namespace tarn::prefill
