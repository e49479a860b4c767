#pragma once

// The server's side of streams (see stream.h). In a service of gRPC's callback kind:
//
//   grpc::ServerBidiReactor<In, Out>* Attach(grpc::CallbackServerContext* context) override {
//     return AcceptStream<In, Out>(context, loop_, options_,
//         [this](std::shared_ptr<Stream<Out>> stream) { return sessions_.Open(stream); });
//   }
//   grpc::ServerWriteReactor<Out>* Generate(grpc::CallbackServerContext* context,
//                                           const Request* request) override {
//     return AcceptWriter<Out>(context, loop_, options_, [this, request = *request](auto writer) {
//       return Start(request, writer);
//     });
//   }

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "common/rpc/internal/server_reactor.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"

namespace tarn {

// Runs on the loop, before all messages; returns who is told about them. The owner must keep the
// handle: without it the stream ends.
template <typename In, typename Out>
using OnStreamOpen = std::function<StreamHandler<In>(std::shared_ptr<Stream<Out>>)>;

// `loop` must outlive the server's Shutdown. Headers go out at once, so the client knows.
template <typename In, typename Out>
grpc::ServerBidiReactor<In, Out>* AcceptStream(grpc::CallbackServerContext* context,
                                               EventLoop& loop, const StreamOptions& options,
                                               OnStreamOpen<In, Out> on_open) {
  return internal::ServerBidi<In, Out>::Start(context, loop, options, std::move(on_open));
}

// A writer's client sends nothing, so only on_closed can be called. It comes with CANCELLED as
// soon as the client is gone.
struct WriterHandler {
  std::function<void(absl::Status)> on_closed;
};

template <typename Out>
using OnWriterOpen = std::function<WriterHandler(std::shared_ptr<Stream<Out>>)>;

template <typename Out>
grpc::ServerWriteReactor<Out>* AcceptWriter(grpc::CallbackServerContext* context, EventLoop& loop,
                                            const StreamOptions& options,
                                            OnWriterOpen<Out> on_open) {
  auto adapted = [on_open = std::move(on_open)](std::shared_ptr<Stream<Out>> stream) {
    return StreamHandler<Out>{.on_closed = on_open(std::move(stream)).on_closed};
  };
  return internal::ServerWriter<Out>::Start(context, loop, options, std::move(adapted));
}

}  // namespace tarn
