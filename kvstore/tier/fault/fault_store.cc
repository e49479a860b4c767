#include "kvstore/tier/fault/fault_store.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "common/runtime/random.h"

namespace tarn::kvstore {

StoreFaultPlan NoStoreFaults() {
  return [](StoreCall, int32_t) { return StoreFault{}; };
}

StoreFaultPlan SeededStoreFaults(uint64_t seed, const StoreFaultRates& rates) {
  // Every draw is made for every call, so that one rate does not move the faults of another.
  return [random = Random(seed), rates](StoreCall call, int32_t) mutable {
    const bool read = call == StoreCall::kRead;
    StoreFault fault;
    const bool delayed = random.Chance(rates.delay);
    const absl::Duration delay = rates.max_delay * random.UniformDouble();
    if (delayed) fault.delay = delay;
    if (random.Chance(read ? rates.read_error : rates.write_error)) {
      fault.error = rates.error_status;
    }
    const bool cut = random.Chance(rates.short_read);
    const uint64_t bytes = random.Next();
    if (read && cut) fault.cut = bytes;
    const bool corrupt = random.Chance(rates.corrupt);
    const uint64_t bit = random.Next();
    if (read && corrupt) fault.flip_bit = bit;
    return fault;
  };
}

// Kept by what is under way; the store below goes with the store above.
class FaultBlockStore::Device : public SlotDevice, public std::enable_shared_from_this<Device> {
 public:
  Device(std::unique_ptr<BlockStore> base, const BlockLayout& layout, EventLoop* loop,
         StoreFaultPlan plan)
      : base_(std::move(base)), layout_(layout), loop_(loop), plan_(std::move(plan)) {}

  void Attach(const std::shared_ptr<SlotQueue>& queue) { queue_ = queue; }
  void Close() { base_.reset(); }
  void SetPlan(StoreFaultPlan plan) { plan_ = std::move(plan); }
  const BlockStore& base() const { return *base_; }

  void Start(std::shared_ptr<SlotOp> op) override {
    const bool read = op->kind == SlotOp::Kind::kRead;
    const StoreFault fault = plan_(read ? StoreCall::kRead : StoreCall::kWrite, op->slot);
    if (fault.delay <= absl::ZeroDuration()) return Begin(op, fault);
    loop_->PostAfter(fault.delay,
                     [self = shared_from_this(), op, fault] { self->Begin(op, fault); });
  }

  void Erase(int32_t slot) override { base_->Erase(slot); }

 private:
  void Begin(const std::shared_ptr<SlotOp>& op, const StoreFault& fault) {
    if (!op->Claim()) return;
    const bool read = op->kind == SlotOp::Kind::kRead;
    std::shared_ptr<SlotQueue> queue = queue_.lock();
    if (!fault.error.ok()) {
      if (!read) base_->Erase(op->slot);
      return queue->PostFinish(op, fault.error);
    }
    auto done = [self = shared_from_this(), queue, op, fault](absl::Status status) {
      if (status.ok()) status = self->Spoil(*op, fault);
      queue->Finish(op, status);
    };
    if (read) {
      base_->Read(op->slot, op->identity.key, op->page, op->deadline, std::move(done));
    } else {
      base_->Write(op->slot, op->record, op->page, std::move(done));
    }
  }

  // Damages what was read, and looks at it as a store does.
  absl::Status Spoil(const SlotOp& op, const StoreFault& fault) {
    if (!fault.cut.has_value() && !fault.flip_bit.has_value()) return absl::OkStatus();
    const BlockHeader& header = HeaderOf(op.page);
    const BlockIdentity identity{header.key, header.epoch, header.token_count};
    if (fault.cut.has_value()) {
      const std::span<std::byte> lost = op.page.subspan(*fault.cut % op.page.size());
      std::fill(lost.begin(), lost.end(), std::byte{0});
    }
    if (fault.flip_bit.has_value()) {
      const uint64_t bit = *fault.flip_bit % (op.page.size() * 8);
      op.page[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    absl::Status status = VerifyStored(layout_, identity, op.page);
    if (!status.ok() && base_ != nullptr) base_->Erase(op.slot);
    return status;
  }

  std::unique_ptr<BlockStore> base_;  // null when closed
  const BlockLayout layout_;
  EventLoop* const loop_;
  StoreFaultPlan plan_;
  std::weak_ptr<SlotQueue> queue_;
};

FaultBlockStore::FaultBlockStore(std::unique_ptr<BlockStore> base, const FaultStoreOptions& options,
                                 EventLoop* loop, StoreFaultPlan plan)
    : FaultBlockStore(
          options, loop,
          std::make_shared<Device>(std::move(base), options.layout, loop, std::move(plan))) {}

FaultBlockStore::FaultBlockStore(const FaultStoreOptions& options, EventLoop* loop,
                                 std::shared_ptr<Device> device)
    : QueuedStore(SlotQueue::Make(
          {options.layout, device->base().slots(), options.max_reads, options.max_writes}, loop,
          device.get())),
      device_(std::move(device)) {
  device_->Attach(queue_);
}

FaultBlockStore::~FaultBlockStore() {
  queue_->Close();
  device_->Close();
}

void FaultBlockStore::SetPlan(StoreFaultPlan plan) { device_->SetPlan(std::move(plan)); }

BlockStoreStats FaultBlockStore::Stats() const {
  const BlockStoreStats below = device_->base().Stats();
  BlockStoreStats stats = queue_->stats();
  stats.device_written_bytes = below.device_written_bytes;
  stats.index_errors = below.index_errors;
  stats.records_dropped = below.records_dropped;
  stats.indexes_dropped = below.indexes_dropped;
  return stats;
}

FaultPersistentBlockStore::FaultPersistentBlockStore(std::unique_ptr<PersistentBlockStore> base,
                                                     const FaultStoreOptions& options,
                                                     EventLoop* loop, StoreFaultPlan plan)
    : base_(base.get()), faults_(std::move(base), options, loop, std::move(plan)) {}

void FaultPersistentBlockStore::Recover(OnRecovered recovered, Done done) {
  base_->Recover(
      [queue = faults_.queue_, recovered = std::move(recovered)](std::vector<Recovered> blocks,
                                                                 double percent) {
        for (const Recovered& block : blocks) {
          queue->Put(block.slot, {block.record.key, 0, block.record.token_count});
        }
        recovered(std::move(blocks), percent);
      },
      std::move(done));
}

}  // namespace tarn::kvstore
