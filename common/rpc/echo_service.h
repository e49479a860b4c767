#pragma once

// The service of the tests in this folder, and a running server with it.

#include <functional>
#include <memory>
#include <utility>

#include "common/rpc/echo.grpc.pb.h"
#include "common/rpc/server.h"
#include "common/rpc/server_stream.h"
#include "common/rpc/unary.h"
#include "common/runtime/event_loop.h"

namespace tarn::rpc_test {

using PongStream = Stream<Pong>;

// Each method does what the test has put there, on `loop`.
class EchoService : public Echo::CallbackService {
 public:
  explicit EchoService(EventLoop& loop) : loop_(loop) {}

  std::function<void(const Ping&, UnaryReply<Pong>)> on_call;
  OnStreamOpen<Ping, Pong> on_attach;
  std::function<WriterHandler(const Ping&, std::shared_ptr<PongStream>)> on_count;
  StreamOptions stream_options;

  grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context, const Ping* request,
                                 Pong* response) override {
    return HandleUnary<Ping, Pong>(context, loop_, request, response, on_call);
  }
  grpc::ServerBidiReactor<Ping, Pong>* Attach(grpc::CallbackServerContext* context) override {
    return AcceptStream<Ping, Pong>(context, loop_, stream_options, on_attach);
  }
  grpc::ServerWriteReactor<Pong>* Count(grpc::CallbackServerContext* context,
                                        const Ping* request) override {
    return AcceptWriter<Pong>(context, loop_, stream_options,
                              [this, request = *request](std::shared_ptr<PongStream> writer) {
                                return on_count(request, std::move(writer));
                              });
  }

 private:
  EventLoop& loop_;
};

inline Ping MakePing(uint64_t number, size_t payload_bytes = 0) {
  Ping ping;
  ping.set_number(number);
  ping.set_payload(std::string(payload_bytes, 'x'));
  return ping;
}

inline Pong MakePong(uint64_t number, size_t payload_bytes = 0) {
  Pong pong;
  pong.set_number(number);
  pong.set_payload(std::string(payload_bytes, 'x'));
  return pong;
}

}  // namespace tarn::rpc_test
