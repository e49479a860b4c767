#pragma once

// The client's side of a bidirectional stream (see stream.h):
//
//   stream_ = OpenStream(stub_->async(), &Echo::StubInterface::async_interface::Attach, loop_,
//                        options, StreamHandler<Reply>{.on_message = ..., .on_closed = ...});
//
// And of a server stream: OpenReader, with a request instead of messages to send.

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <utility>

#include "common/rpc/internal/client_reactor.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"

namespace tarn {

// A running server stream: dropping the handle on the loop, or Cancel, ends it.
class Reader {
 public:
  virtual ~Reader() = default;
  // Thread-safe. on_closed follows with CANCELLED, or what came first.
  virtual void Cancel() = 0;
};

namespace internal {

template <typename Core>
class ReaderHandle : public Reader {
 public:
  explicit ReaderHandle(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  ~ReaderHandle() override { core_->Detach(); }
  void Cancel() override { core_->Cancel(absl::CancelledError("cancelled by the client")); }

 private:
  const std::shared_ptr<Core> core_;
};

}  // namespace internal

// Starts the call; messages may be sent at once. A peer that is not there gives on_closed with
// UNAVAILABLE. `loop` must outlive the call: wait for on_closed, or stop the loop after the
// channel's last user. The stub may go earlier.
template <typename Async, typename Base, typename Out, typename In>
std::shared_ptr<Stream<Out>> OpenStream(
    Async* async, void (Base::*method)(grpc::ClientContext*, grpc::ClientBidiReactor<Out, In>*),
    EventLoop& loop, const StreamOptions& options, StreamHandler<In> handler) {
  return internal::ClientBidi<Out, In>::Start(
      [&](grpc::ClientContext* context, grpc::ClientBidiReactor<Out, In>* reactor) {
        (async->*method)(context, reactor);
      },
      loop, options, std::move(handler));
}

template <typename Async, typename Base, typename Request, typename In>
std::shared_ptr<Reader> OpenReader(Async* async,
                                   void (Base::*method)(grpc::ClientContext*, const Request*,
                                                        grpc::ClientReadReactor<In>*),
                                   const Request& request, EventLoop& loop,
                                   const StreamOptions& options, StreamHandler<In> handler) {
  auto core = internal::ClientReader<In>::Start(
      [&](grpc::ClientContext* context, grpc::ClientReadReactor<In>* reactor) {
        (async->*method)(context, &request, reactor);
      },
      loop, options, std::move(handler));
  return std::make_shared<internal::ReaderHandle<internal::ClientReader<In>>>(std::move(core));
}

}  // namespace tarn
