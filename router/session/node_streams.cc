#include "router/session/node_streams.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "proto/decode.grpc.pb.h"
#include "proto/prefill.grpc.pb.h"

namespace tarn::router {
namespace {

class GrpcNodeStreams : public NodeStreams {
 public:
  GrpcNodeStreams(EventLoop* loop, const StreamOptions& options) : loop_(loop), options_(options) {}

  std::shared_ptr<Stream<v1::PrefillCommand>> OpenPrefill(
      const std::string& address, StreamHandler<v1::PrefillEvents> handler) override {
    const auto stub = v1::Prefill::NewStub(MakeChannel(address));
    return OpenStream(stub->async(), &v1::Prefill::StubInterface::async_interface::Session, *loop_,
                      options_, std::move(handler));
  }

  std::shared_ptr<Stream<v1::DecodeCommand>> OpenDecode(
      const std::string& address, StreamHandler<v1::DecodeEvents> handler) override {
    const auto stub = v1::Decode::NewStub(MakeChannel(address));
    return OpenStream(stub->async(), &v1::Decode::StubInterface::async_interface::Session, *loop_,
                      options_, std::move(handler));
  }

 private:
  EventLoop* const loop_;
  const StreamOptions options_;
};

}  // namespace

std::unique_ptr<NodeStreams> MakeGrpcNodeStreams(EventLoop* loop, const StreamOptions& options) {
  return std::make_unique<GrpcNodeStreams>(loop, options);
}

}  // namespace tarn::router
