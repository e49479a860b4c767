#include "kvstore/client/stage_calls.h"

#include <algorithm>
#include <utility>

#include "common/rpc/channel.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kMaxStubs = 1024;

absl::StatusOr<BlockAddress> AddressOf(const v1::StageResponse::Block& block) {
  if (block.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(block.code()), block.message());
  }
  return BlockAddress{block.region(), block.offset(), block.epoch()};
}

}  // namespace

StageCalls::~StageCalls() {
  for (auto& [id, cancel] : calls_) cancel();
}

void StageCalls::Stage(const std::string& address, const BlockKey& key, absl::Time deadline,
                       Done done) {
  if (waiting_.empty()) {
    loop_->Post([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) Send();
    });
  }
  std::vector<Batch>& batches = waiting_[address];
  if (batches.empty() || batches.back().keys.size() >= kMaxStageKeys) batches.emplace_back();
  Batch& batch = batches.back();
  batch.keys.push_back(key);
  batch.done.push_back(std::move(done));
  batch.deadline = std::max(batch.deadline, deadline);
}

void StageCalls::Send() {
  auto waiting = std::exchange(waiting_, {});
  for (auto& [address, batches] : waiting) {
    for (Batch& batch : batches) Call(address, std::move(batch));
  }
}

void StageCalls::Call(const std::string& address, Batch batch) {
  if (stubs_.size() >= kMaxStubs && !stubs_.contains(address)) stubs_.clear();
  std::unique_ptr<v1::Pool::Stub>& stub = stubs_[address];
  if (stub == nullptr) stub = v1::Pool::NewStub(MakeChannel(address));
  absl::Duration timeout = std::max(batch.deadline - loop_->Now(), absl::Milliseconds(1));
  timeout = std::min(timeout, absl::Minutes(1));
  v1::StageRequest request;
  for (const BlockKey& key : batch.keys) request.add_keys(key.ToBytes());
  request.set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(timeout)));
  uint64_t id = ++last_call_;
  calls_[id] = CallUnary(
      stub->async(), &v1::Pool::StubInterface::async_interface::Stage, request, timeout, *loop_,
      [this, alive = std::weak_ptr<bool>(alive_), id,
       batch = std::move(batch)](const absl::StatusOr<v1::StageResponse>& response) {
        if (alive.expired()) return;
        calls_.erase(id);
        Deliver(batch, response);
      });
}

void StageCalls::Deliver(const Batch& batch, const absl::StatusOr<v1::StageResponse>& response) {
  for (size_t i = 0; i < batch.done.size(); ++i) {
    if (!response.ok()) {
      batch.done[i](response.status());
    } else if (i < static_cast<size_t>(response->blocks_size())) {
      batch.done[i](AddressOf(response->blocks(static_cast<int>(i))));
    } else {
      batch.done[i](absl::InternalError("the node answered for fewer blocks than it was asked"));
    }
  }
}

}  // namespace tarn::kvstore
