#include "kvstore/tier/slot_queue.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::kvstore {

std::shared_ptr<SlotQueue> SlotQueue::Make(const Options& options, EventLoop* loop,
                                           SlotDevice* device) {
  return std::shared_ptr<SlotQueue>(new SlotQueue(options, loop, device));
}

SlotQueue::SlotQueue(const Options& options, EventLoop* loop, SlotDevice* device)
    : options_(options),
      loop_(loop),
      device_(device),
      held_(options.slots),
      holds_(options.slots, false) {}

void SlotQueue::CheckCall(int32_t slot, std::span<const std::byte> page) const {
  CHECK(loop_->OnLoop());
  CHECK(slot >= 0 && slot < options_.slots) << "slot " << slot << " of " << options_.slots;
  CHECK_EQ(page.size(), options_.layout.page_bytes());
  CHECK_EQ(reinterpret_cast<uintptr_t>(page.data()) % 4096, 0u) << "the page is not aligned";
}

void SlotQueue::Write(int32_t slot, const BlockRecord& record, std::span<const std::byte> page,
                      BlockStore::Done done) {
  CheckCall(slot, page);
  const BlockIdentity identity{record.key, HeaderOf(page).epoch, record.token_count};
  absl::Status refused = VerifyHeader(options_.layout, identity, page);
  if (refused.ok() && stats_.writes_queued >= options_.max_writes) {
    refused = absl::ResourceExhaustedError(
        absl::StrCat("max_writes: ", options_.max_writes, " writes are queued"));
  }
  if (!refused.ok()) {
    Erase(slot);
    return Refuse(SlotOp::Kind::kWrite, std::move(done), std::move(refused));
  }
  auto op = std::make_shared<SlotOp>();
  op->kind = SlotOp::Kind::kWrite;
  op->slot = slot;
  op->identity = identity;
  op->record = record;
  op->page = {const_cast<std::byte*>(page.data()), page.size()};
  op->done = std::move(done);
  ++stats_.writes_queued;
  Enqueue(std::move(op));
}

void SlotQueue::Read(int32_t slot, const BlockKey& key, std::span<std::byte> page,
                     absl::Time deadline, BlockStore::Done done) {
  CheckCall(slot, page);
  if (stats_.reads_queued >= options_.max_reads) {
    return Refuse(SlotOp::Kind::kRead, std::move(done),
                  absl::ResourceExhaustedError(
                      absl::StrCat("max_reads: ", options_.max_reads, " reads are queued")));
  }
  if (deadline <= loop_->Now()) {
    return Refuse(SlotOp::Kind::kRead, std::move(done),
                  absl::DeadlineExceededError("the read came after its deadline"));
  }
  auto op = std::make_shared<SlotOp>();
  op->slot = slot;
  op->identity.key = key;
  op->page = page;
  op->deadline = deadline;
  op->done = std::move(done);
  if (deadline != absl::InfiniteFuture()) {
    op->timer_ = loop_->PostAt(deadline, [self = shared_from_this(), op] {
      if (op->Claim()) self->Finish(op, absl::DeadlineExceededError("the read was not begun"));
    });
  }
  ++stats_.reads_queued;
  Enqueue(std::move(op));
}

void SlotQueue::Erase(int32_t slot) {
  CHECK(slot >= 0 && slot < options_.slots) << "slot " << slot << " of " << options_.slots;
  auto op = std::make_shared<SlotOp>();
  op->kind = SlotOp::Kind::kErase;
  op->slot = slot;
  Enqueue(std::move(op));
}

void SlotQueue::Put(int32_t slot, const BlockIdentity& identity) {
  held_[slot] = identity;
  holds_[slot] = true;
}

const BlockIdentity* SlotQueue::Held(int32_t slot) const {
  return holds_[slot] ? &held_[slot] : nullptr;
}

void SlotQueue::Refuse(SlotOp::Kind kind, BlockStore::Done done, absl::Status status) {
  Count(kind, status);
  loop_->Post([done = std::move(done), status = std::move(status)] { done(status); });
}

void SlotQueue::Enqueue(std::shared_ptr<SlotOp> op) {
  const int32_t slot = op->slot;
  lanes_[slot].waiting.push_back(std::move(op));
  Advance(slot);
}

void SlotQueue::Advance(int32_t slot) {
  auto found = lanes_.find(slot);
  if (found == lanes_.end()) return;
  Lane& lane = found->second;
  while (device_ != nullptr && !lane.waiting.empty()) {
    std::shared_ptr<SlotOp> op = lane.waiting.front();
    const bool alone = op->kind != SlotOp::Kind::kRead;
    if (lane.writing || (alone && !lane.active.empty())) return;
    lane.waiting.erase(lane.waiting.begin());
    if (op->kind == SlotOp::Kind::kErase) {
      holds_[slot] = false;
      device_->Erase(slot);
      continue;
    }
    op->started_ = true;
    lane.writing = alone;
    lane.active.push_back(op);
    Begin(op);
  }
  if (lane.waiting.empty() && lane.active.empty()) lanes_.erase(found);
}

void SlotQueue::Begin(const std::shared_ptr<SlotOp>& op) {
  if (op->kind == SlotOp::Kind::kWrite) {
    holds_[op->slot] = false;
    return device_->Start(op);
  }
  const BlockIdentity* held = Held(op->slot);
  if (held != nullptr && held->key == op->identity.key) {
    op->identity = *held;
    return device_->Start(op);
  }
  if (!op->Claim()) return;
  PostFinish(op, absl::NotFoundError(absl::StrCat("slot ", op->slot, " does not hold block ",
                                                  op->identity.key.ToHex())));
}

void SlotQueue::Finish(const std::shared_ptr<SlotOp>& op, const absl::Status& status) {
  CHECK(op->done) << "an op ends once";
  const BlockStore::Done done = std::exchange(op->done, nullptr);
  loop_->CancelTimer(op->timer_);
  Count(op->kind, status);
  if (op->kind == SlotOp::Kind::kWrite) {
    --stats_.writes_queued;
    if (status.ok()) Put(op->slot, op->identity);
  } else {
    --stats_.reads_queued;
    if (absl::IsDataLoss(status)) holds_[op->slot] = false;
  }
  Leave(op);
  Advance(op->slot);
  done(status);
}

void SlotQueue::PostFinish(std::shared_ptr<SlotOp> op, absl::Status status) {
  loop_->Post([self = shared_from_this(), op = std::move(op), status = std::move(status)] {
    self->Finish(op, status);
  });
}

void SlotQueue::Leave(const std::shared_ptr<SlotOp>& op) {
  Lane& lane = lanes_.at(op->slot);
  auto& ops = op->started_ ? lane.active : lane.waiting;
  ops.erase(std::find(ops.begin(), ops.end(), op));
  if (op->started_ && op->kind == SlotOp::Kind::kWrite) lane.writing = false;
}

void SlotQueue::Count(SlotOp::Kind kind, const absl::Status& status) {
  const bool read = kind == SlotOp::Kind::kRead;
  if (status.ok()) {
    ++(read ? stats_.reads : stats_.writes);
    (read ? stats_.read_bytes : stats_.written_bytes) += options_.layout.page_bytes();
  } else if (absl::IsUnavailable(status)) {
    ++(read ? stats_.read_errors : stats_.write_errors);
  } else if (absl::IsDataLoss(status)) {
    ++(read ? stats_.verify_failures : stats_.write_errors);
  }
}

void SlotQueue::Close() {
  device_ = nullptr;
  for (auto& [slot, lane] : lanes_) {
    for (const auto* ops : {&lane.waiting, &lane.active}) {
      for (const std::shared_ptr<SlotOp>& op : *ops) {
        if (op->kind == SlotOp::Kind::kErase || !op->Claim()) continue;
        PostFinish(op, absl::CancelledError("the store is closed"));
      }
    }
  }
}

absl::Status VerifyStored(const BlockLayout& layout, const BlockIdentity& identity,
                          std::span<const std::byte> page) {
  const absl::Status status = VerifyBlock(layout, identity, page);
  return absl::IsAborted(status) ? absl::DataLossError(Message(status)) : status;
}

}  // namespace tarn::kvstore
