#pragma once

// How the router reaches nodes: one long stream to each, many requests on it.
// gRPC in the server (MakeGrpcNodeStreams); in tests a fake that answers in virtual time.

#include <memory>
#include <string>

#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "proto/decode.pb.h"
#include "proto/prefill.pb.h"

namespace tarn::router {

// Loop-only; does not block. Stream and handler as in common/rpc/stream.h: on_open, then messages,
// then on_closed once; dropping the handle ends the stream and silences the handler.
class NodeStreams {
 public:
  virtual ~NodeStreams() = default;

  // `address`: NodeInfo.rpc_address.
  virtual std::shared_ptr<Stream<v1::PrefillCommand>> OpenPrefill(
      const std::string& address, StreamHandler<v1::PrefillEvents> handler) = 0;
  virtual std::shared_ptr<Stream<v1::DecodeCommand>> OpenDecode(
      const std::string& address, StreamHandler<v1::DecodeEvents> handler) = 0;
};

// `loop` outlives the streams.
std::unique_ptr<NodeStreams> MakeGrpcNodeStreams(EventLoop* loop,
                                                 const StreamOptions& options = {});

}  // namespace tarn::router
