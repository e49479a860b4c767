#include "kvstore/client/pool_service.h"

#include "common/base/status.h"
#include "common/rpc/unary.h"
#include "kvstore/client/handshake.h"

namespace tarn::kvstore {

PoolService::PoolService(EventLoop* loop, PeerAddress address)
    : loop_(loop), address_(std::move(address)) {}

grpc::ServerUnaryReactor* PoolService::Handshake(grpc::CallbackServerContext* context,
                                                 const v1::HandshakeRequest* request,
                                                 v1::HandshakeResponse* response) {
  return HandleUnary<v1::HandshakeRequest, v1::HandshakeResponse>(
      context, *loop_, request, response,
      [this](const v1::HandshakeRequest& asked, const UnaryReply<v1::HandshakeResponse>& reply) {
        reply(Answer(asked.caller()));
      });
}

absl::StatusOr<v1::HandshakeResponse> PoolService::Answer(const v1::NodeInfo& caller) const {
  if (self_.node_id().empty()) return absl::UnavailableError("this node is still starting");
  RETURN_IF_ERROR(CheckCompatible(self_, caller));
  v1::HandshakeResponse response;
  *response.mutable_node() = self_;
  response.set_worker_address(address_.worker);
  for (const std::string& region : address_.regions) response.add_region_descriptors(region);
  return response;
}

}  // namespace tarn::kvstore
