#pragma once

// Stores over a slab of a transport's memory, for the conformance suite of block stores. Whoever
// derives makes the loop and the transport.

#include <glog/logging.h>

#include <functional>
#include <memory>
#include <utility>

#include "kvstore/tier/conformance_harness.h"
#include "kvstore/tier/slab/slab_store.h"

namespace tarn::kvstore {

class SlabHarness : public BlockStoreHarness {
 public:
  std::span<std::byte> pages() override { return pages_->bytes(); }

  std::unique_ptr<BlockStore> Make(const Limits& limits) override {
    absl::StatusOr<std::unique_ptr<SlabStore>> store =
        SlabStore::Create({layout(), limits.slots, limits.max_reads, limits.max_writes},
                          &driver().loop(), transport_.get());
    CHECK(store.ok()) << store.status();
    CHECK_EQ((*store)->memory()->index().value(), 1u);
    const absl::StatusOr<PeerId> self = transport_->Connect(
        {transport_->Address(), {pages_->descriptor(), (*store)->memory()->descriptor()}});
    CHECK(self.ok()) << self.status();
    driver().OnLoop([&] { (*store)->Connect(*self, {pages_}); });
    return *std::move(store);
  }
  void Damage(BlockStore& store, int32_t slot, size_t offset) override {
    static_cast<SlabStore&>(store).Bytes(slot)[offset] ^= std::byte{1};
  }
  bool HoldBack(BlockStore&, bool) override { return false; }

 protected:
  void Start(std::unique_ptr<Transport> transport) {
    transport_ = std::move(transport);
    auto pages = transport_->Allocate(layout().page_bytes() * kPages);
    CHECK(pages.ok()) << pages.status();
    pages_ = *std::move(pages);
  }
  // Before what the transport stands on goes.
  void End() {
    pages_.reset();
    transport_.reset();
  }

 private:
  std::unique_ptr<Transport> transport_;
  std::shared_ptr<RegisteredMemory> pages_;
};

// On a loop with a thread.
class RealSlabHarness : public SlabHarness {
 public:
  explicit RealSlabHarness(const std::function<std::unique_ptr<Transport>(EventLoop&)>& make) {
    Start(make(driver_.loop()));
  }
  ~RealSlabHarness() override { End(); }
  LoopDriver& driver() override { return driver_; }

 private:
  RealLoopDriver driver_;
};

}  // namespace tarn::kvstore
