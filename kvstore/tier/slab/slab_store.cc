#include "kvstore/tier/slab/slab_store.h"

#include <glog/logging.h>

#include <utility>

#include "common/base/status.h"
#include "common/memory/block_header.h"

namespace tarn::kvstore {

class SlabStore::Device : public SlotDevice {
 public:
  Device(const BlockLayout& layout, Transport* transport, Memory memory)
      : layout_(layout),
        transport_(transport),
        memory_(std::move(memory)),
        slab_(memory_->bytes(), layout.page_bytes()) {}

  void Attach(const std::shared_ptr<SlotQueue>& queue) { queue_ = queue; }
  void Connect(PeerId self, std::vector<Memory> regions) {
    self_ = self;
    regions_ = std::move(regions);
  }
  const PageSlab& slab() const { return slab_; }
  const Memory& memory() const { return memory_; }

  void Start(std::shared_ptr<SlotOp> op) override {
    if (!op->Claim()) return;
    op->kind == SlotOp::Kind::kRead ? StartRead(op) : StartWrite(op);
  }

  void Erase(int32_t slot) override { InvalidateBlock(slab_.page(slot)); }

 private:
  struct Place {
    Memory memory;
    uint64_t offset = 0;
  };

  void StartRead(const std::shared_ptr<SlotOp>& op) {
    const Place target = PlaceOf(op->page);
    const Place source{memory_, slab_.OffsetOf(op->slot)};
    auto end = [slot = slab_.page(op->slot)](const absl::Status& status) {
      if (!absl::IsAborted(status) && !absl::IsDataLoss(status)) return status;
      InvalidateBlock(slot);
      return absl::DataLossError(Message(status));
    };
    Copy(source, op->page, target.memory, op, std::move(end));
  }

  void StartWrite(const std::shared_ptr<SlotOp>& op) {
    const std::span<std::byte> slot = slab_.page(op->slot);
    InvalidateBlock(slot);
    auto end = [layout = layout_, op, slot](const absl::Status& status) {
      if (status.ok()) return status;
      // Its header may have come whole, in front of another's payload.
      InvalidateBlock(slot);
      const absl::Status source = VerifyHeader(layout, op->identity, op->page);
      return absl::IsDataLoss(status) && !source.ok() ? absl::AbortedError(Message(source))
                                                      : status;
    };
    Copy(PlaceOf(op->page), slot, memory_, op, std::move(end));
  }

  // `end` turns the transfer's status into the op's. Nothing here touches the device, which may
  // have gone by then.
  template <typename End>
  void Copy(const Place& source, std::span<std::byte> to, const Memory& target,
            const std::shared_ptr<SlotOp>& op, End end) {
    ReadBatch batch;
    const size_t bytes = layout_.payload_offset() + layout_.payload_bytes();
    batch.ops.push_back({source.memory->index(), source.offset, to.first(bytes)});
    batch.verify = [layout = layout_, identity = op->identity, to](size_t) {
      return VerifyBlock(layout, identity, to);
    };
    // Not cancelled when the store goes: a copy is over sooner.
    transport_->Read(
        self_, std::move(batch),
        [op, end, queue = queue_.lock(), from = source.memory, target](
            const std::vector<absl::Status>& statuses) { queue->Finish(op, end(statuses.at(0))); });
  }

  Place PlaceOf(std::span<const std::byte> page) const {
    for (const Memory& region : regions_) {
      const std::span<std::byte> bytes = region->bytes();
      if (page.data() < bytes.data() || page.data() >= bytes.data() + bytes.size()) continue;
      CHECK_LE(page.data() + page.size(), bytes.data() + bytes.size());
      return {region, static_cast<uint64_t>(page.data() - bytes.data())};
    }
    LOG(FATAL) << "the page lies in no region that the store was told of";
  }

  const BlockLayout layout_;
  Transport* const transport_;
  const Memory memory_;
  const PageSlab slab_;
  std::weak_ptr<SlotQueue> queue_;
  PeerId self_;
  std::vector<Memory> regions_;
};

absl::StatusOr<std::unique_ptr<SlabStore>> SlabStore::Create(const SlabStoreOptions& options,
                                                             EventLoop* loop,
                                                             Transport* transport) {
  const size_t bytes = options.layout.page_bytes() * static_cast<size_t>(options.slots);
  ASSIGN_OR_RETURN(std::unique_ptr<RegisteredMemory> memory, transport->Allocate(bytes));
  auto device = std::make_unique<Device>(options.layout, transport, std::move(memory));
  return std::unique_ptr<SlabStore>(new SlabStore(options, loop, std::move(device)));
}

SlabStore::SlabStore(const SlabStoreOptions& options, EventLoop* loop,
                     std::unique_ptr<Device> device)
    : QueuedStore(
          SlotQueue::Make({options.layout, options.slots, options.max_reads, options.max_writes},
                          loop, device.get())),
      device_(std::move(device)) {
  device_->Attach(queue_);
}

SlabStore::~SlabStore() { queue_->Close(); }

void SlabStore::Connect(PeerId self, std::vector<Memory> regions) {
  device_->Connect(self, std::move(regions));
}

BlockStoreStats SlabStore::Stats() const {
  BlockStoreStats stats = queue_->stats();
  stats.device_written_bytes = stats.written_bytes;
  return stats;
}

void SlabStore::Stamp(int32_t slot, const BlockIdentity& block) {
  RestampBlock(Bytes(slot), block.epoch);
  queue_->Put(slot, block);
}

std::span<std::byte> SlabStore::Bytes(int32_t slot) const { return device_->slab().page(slot); }

BlockAddress SlabStore::Address(int32_t slot) const {
  const BlockIdentity* held = queue_->Held(slot);
  return {memory()->index().value(), device_->slab().OffsetOf(slot),
          held == nullptr ? 0 : held->epoch};
}

const SlabStore::Memory& SlabStore::memory() const { return device_->memory(); }

}  // namespace tarn::kvstore
