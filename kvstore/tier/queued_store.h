#pragma once

// A store over a SlotQueue: what the queue answers by itself. A store adds its device, which it
// gives to the queue, its figures, and the end of both.
//
// `Seam` is BlockStore or PersistentBlockStore.

#include <memory>
#include <span>
#include <utility>

#include "kvstore/tier/slot_queue.h"

namespace tarn::kvstore {

template <typename Seam>
class QueuedStore : public Seam {
 public:
  using typename Seam::Done;

  int slots() const override { return queue_->slots(); }
  void Write(int32_t slot, const BlockRecord& record, std::span<const std::byte> page,
             Done done) override {
    queue_->Write(slot, record, page, std::move(done));
  }
  void Read(int32_t slot, const BlockKey& key, std::span<std::byte> page, absl::Time deadline,
            Done done) override {
    queue_->Read(slot, key, page, deadline, std::move(done));
  }
  void Erase(int32_t slot) override { queue_->Erase(slot); }

 protected:
  explicit QueuedStore(std::shared_ptr<SlotQueue> queue) : queue_(std::move(queue)) {}

  const std::shared_ptr<SlotQueue> queue_;
};

}  // namespace tarn::kvstore
