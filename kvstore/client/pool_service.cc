#include "kvstore/client/pool_service.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kvstore/client/handshake.h"
#include "kvstore/client/stage_calls.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {

namespace {

// Answers when the last of its blocks is told; made once for each call.
class Staging {
 public:
  Staging(int blocks, UnaryReply<v1::StageResponse> reply)
      : left_(blocks), reply_(std::move(reply)) {
    for (int i = 0; i < blocks; ++i) response_.add_blocks();
  }

  void Set(int index, const absl::StatusOr<NodePool::StagedBlock>& block) {
    v1::StageResponse::Block* told = response_.mutable_blocks(index);
    if (block.ok()) {
      told->set_tier(ToProto(block->tier));
      told->set_region(block->address.region);
      told->set_offset(block->address.offset);
      told->set_epoch(block->address.epoch);
    } else {
      told->set_code(static_cast<uint32_t>(block.status().code()));
      told->set_message(Message(block.status()));
    }
    if (--left_ == 0) reply_(std::move(response_));
  }

 private:
  int left_;
  UnaryReply<v1::StageResponse> reply_;
  v1::StageResponse response_;
};

}  // namespace

PoolService::PoolService(EventLoop* loop, StageBlock stage, PeerAddress address)
    : loop_(loop), stage_(std::move(stage)), address_(std::move(address)) {}

grpc::ServerUnaryReactor* PoolService::Stage(grpc::CallbackServerContext* context,
                                             const v1::StageRequest* request,
                                             v1::StageResponse* response) {
  return HandleUnary<v1::StageRequest, v1::StageResponse>(
      context, *loop_, request, response,
      [this](const v1::StageRequest& asked, UnaryReply<v1::StageResponse> reply) {
        StartStaging(asked, std::move(reply));
      });
}

void PoolService::StartStaging(const v1::StageRequest& request,
                               UnaryReply<v1::StageResponse> reply) {
  if (request.keys_size() == 0) return reply(v1::StageResponse());
  if (request.keys_size() > kMaxStageKeys) {
    return reply(absl::InvalidArgumentError(
        absl::StrCat("keys: ", request.keys_size(), " of them, at most ", kMaxStageKeys)));
  }
  std::vector<BlockKey> keys;
  for (const std::string& bytes : request.keys()) {
    absl::StatusOr<BlockKey> key = BlockKey::FromBytes(bytes);
    if (!key.ok()) return reply(Annotate(key.status(), "keys"));
    keys.push_back(*key);
  }
  absl::Time deadline = loop_->Now() + absl::Milliseconds(request.timeout_ms());
  auto staging = std::make_shared<Staging>(request.keys_size(), std::move(reply));
  for (size_t i = 0; i < keys.size(); ++i) {
    stage_(keys[i], deadline, [staging, i](const absl::StatusOr<NodePool::StagedBlock>& block) {
      staging->Set(static_cast<int>(i), block);
    });
  }
}

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
