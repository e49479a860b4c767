#pragma once

// The tier of blocks in registered memory: the executor's pages, and DRAM.
//
// What peers read at Address(slot). Blocks come by Write, or are made in place (an executor's
// output, a pull) and told of by Stamp. Copies are made by the transport, which reads this node's
// own memory: the loop does not copy, and each copy is verified on the transport's thread while it
// is in cache. Slots keep no more than the identity of their block; what it is worth is the table's
// matter.
//
// Loop-only. The memory may outlive the store: transfers under way keep it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "common/memory/page_slab.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/core/types.h"
#include "kvstore/tier/block_store.h"
#include "kvstore/tier/queued_store.h"

namespace tarn::kvstore {

struct SlabStoreOptions {
  BlockLayout layout;
  int slots = 0;
  int max_reads = 1024;
  int max_writes = 256;
};

// Write says DATA_LOSS too where the page is sealed, but does not match its checksum. From the time
// that Erase takes effect no peer can read the block.
class SlabStore : public QueuedStore<BlockStore> {
 public:
  using Memory = std::shared_ptr<RegisteredMemory>;

  // Allocates the slab; RESOURCE_EXHAUSTED says how much memory was asked for. `loop` and
  // `transport` outlive the store.
  static absl::StatusOr<std::unique_ptr<SlabStore>> Create(const SlabStoreOptions& options,
                                                           EventLoop* loop, Transport* transport);
  // The `done` of the copies under way runs later, with the outcome.
  ~SlabStore() override;

  // Before the first Write or Read. `self`: the transport as its own peer, which knows the slab's
  // and all `regions`, each by its index. Pages that calls name lie in `regions`.
  void Connect(PeerId self, std::vector<Memory> regions);

  BlockStoreStats Stats() const override;

  // Says which block lies in Bytes(slot), whole but for its epoch, which becomes that of `block`:
  // after it was made in place, or to give a written one the epoch under which peers know it.
  // Nothing may be under way on the slot.
  void Stamp(int32_t slot, const BlockIdentity& block);

  std::span<std::byte> Bytes(int32_t slot) const;
  // Where peers find the slot's block; epoch 0 if it holds none.
  BlockAddress Address(int32_t slot) const;
  const Memory& memory() const;

 private:
  class Device;

  SlabStore(const SlabStoreOptions& options, EventLoop* loop, std::unique_ptr<Device> device);

  const std::unique_ptr<Device> device_;
};

}  // namespace tarn::kvstore
