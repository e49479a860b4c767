#include "kvstore/tier/mem/mem_store.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"

namespace tarn::kvstore {

// Ops under way keep it, and the disk.
class MemStore::Device : public SlotDevice, public std::enable_shared_from_this<Device> {
 public:
  Device(const MemStoreOptions& options, EventLoop* loop, std::shared_ptr<MemDisk> disk)
      : options_(options), loop_(loop), disk_(std::move(disk)) {}

  void Attach(const std::shared_ptr<SlotQueue>& queue) { queue_ = queue; }
  const std::shared_ptr<MemDisk>& disk() const { return disk_; }

  void Start(std::shared_ptr<SlotOp> op) override {
    if (held_back_) return waiting_.push_back(std::move(op));
    if (!op->Claim()) return;
    const bool read = op->kind == SlotOp::Kind::kRead;
    // The queue lives as long as it has ops.
    std::shared_ptr<SlotQueue> queue = queue_.lock();
    loop_->PostAfter(read ? options_.read_latency : options_.write_latency,
                     [self = shared_from_this(), queue, op, read] {
                       queue->Finish(op, read ? self->Read(*op) : self->Write(*op));
                     });
  }

  void Erase(int32_t slot) override { disk_->blocks.erase(slot); }

  void SetHeldBack(bool held_back) {
    held_back_ = held_back;
    if (held_back_) return;
    for (auto& op : std::exchange(waiting_, {})) Start(std::move(op));
  }

 private:
  absl::Status Write(const SlotOp& op) {
    disk_->blocks.erase(op.slot);
    MemDisk::Block block{op.record, op.identity, {}};
    block.page.resize(op.page.size() / sizeof(uint64_t));
    std::memcpy(block.page.data(), op.page.data(), op.page.size());
    RETURN_IF_ERROR(VerifyBlock(options_.layout, op.identity, block.bytes()));
    disk_->blocks[op.slot] = std::move(block);
    return absl::OkStatus();
  }

  absl::Status Read(const SlotOp& op) {
    const auto found = disk_->blocks.find(op.slot);
    if (found == disk_->blocks.end()) return absl::DataLossError("the slot is empty");
    MemDisk::Block& block = found->second;
    std::memcpy(op.page.data(), block.page.data(), op.page.size());
    if (absl::Status status = VerifyStored(options_.layout, op.identity, op.page); !status.ok()) {
      disk_->blocks.erase(found);
      return status;
    }
    ++block.record.uses;
    block.record.last_use = loop_->Now();
    return absl::OkStatus();
  }

  const MemStoreOptions options_;
  EventLoop* const loop_;
  const std::shared_ptr<MemDisk> disk_;
  std::weak_ptr<SlotQueue> queue_;
  bool held_back_ = false;
  std::vector<std::shared_ptr<SlotOp>> waiting_;
};

MemStore::MemStore(const MemStoreOptions& options, EventLoop* loop, std::shared_ptr<MemDisk> disk)
    : MemStore(options, loop, std::make_shared<Device>(options, loop, std::move(disk))) {}

MemStore::MemStore(const MemStoreOptions& options, EventLoop* loop, std::shared_ptr<Device> device)
    : QueuedStore(
          SlotQueue::Make({options.layout, options.slots, options.max_reads, options.max_writes},
                          loop, device.get())),
      options_(options),
      loop_(loop),
      device_(std::move(device)) {
  device_->Attach(queue_);
}

MemStore::~MemStore() { queue_->Close(); }

BlockStoreStats MemStore::Stats() const {
  BlockStoreStats stats = queue_->stats();
  stats.device_written_bytes = stats.written_bytes;
  return stats;
}

void MemStore::SetHeldBack(bool held_back) { device_->SetHeldBack(held_back); }

void MemStore::Recover(OnRecovered recovered, Done done) {
  std::vector<Recovered> all;
  for (const auto& [slot, block] : device_->disk()->blocks) {
    if (slot >= options_.slots) continue;
    queue_->Put(slot, block.identity);
    all.push_back({slot, block.record});
  }
  for (size_t begin = 0; begin < all.size(); begin += options_.recover_batch) {
    const size_t end = std::min(all.size(), begin + options_.recover_batch);
    std::vector<Recovered> batch(all.begin() + begin, all.begin() + end);
    const double percent = 100.0 * static_cast<double>(end) / static_cast<double>(all.size());
    loop_->Post([recovered, batch = std::move(batch), percent, queue = queue_] {
      if (!queue->closed()) recovered(batch, percent);
    });
  }
  loop_->Post([done = std::move(done), queue = queue_] {
    done(queue->closed() ? absl::CancelledError("the store is closed") : absl::OkStatus());
  });
}

}  // namespace tarn::kvstore
