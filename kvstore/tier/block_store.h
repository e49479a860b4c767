#pragma once

// Where the blocks of one tier lie: a row of equal slots, each as large as one block's page.
//
// A store moves whole blocks between its slots and pages of memory here. It never decides: which
// slot a block gets, what stays and what goes is said by the tier's BlockTable, whose pages are
// these slots. Implementations: slab/ (registered memory: HBM and DRAM), ssd/ (a file beside a
// RocksDB index), mem/ (a fake, for tests), fault/ (a decorator that injects errors). One
// conformance suite (conformance.h) runs against all of them.
//
// Loop-only: calls and `done` run on the store's EventLoop, and nothing blocks. Each `done` runs
// exactly once, later than its call. Memory named in a call stays allocated until then, and a page
// that is read into is not touched by others. Operations on one slot take effect in the order of
// the calls; on different slots in any order. Pages are a layout's page_bytes() long, aligned to
// 4 KiB.
//
// Destroying a store ends what is queued with CANCELLED, waits for what the device is doing, and
// runs the `done` of both later, or not at all where their loop has stopped.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/memory/block_header.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What a store keeps with a block, so that a cache can be built again from the store alone.
struct BlockRecord {
  BlockKey key;
  std::optional<BlockKey> parent;
  uint32_t token_count = 0;
  BlockTraits traits;
  absl::Time last_use;
  uint32_t uses = 0;  // reads since it was written
};

// Counters since the store was made; depths are now. `reads` and `writes` are those that were OK,
// errors those that the device failed, verification apart.
struct BlockStoreStats {
  uint64_t reads = 0, read_bytes = 0, read_errors = 0;
  uint64_t writes = 0, written_bytes = 0, write_errors = 0;
  uint64_t device_written_bytes = 0;  // with what the index costs: over written_bytes it is the
                                      // write amplification
  uint64_t verify_failures = 0;       // slots that were read and did not hold their block, intact
  // Of a persistent store: writes of the index that failed (they are tried again), records that
  // named nothing usable when it was read, and whole indexes that were dropped.
  uint64_t index_errors = 0, records_dropped = 0, indexes_dropped = 0;
  int reads_queued = 0, writes_queued = 0;  // called, and not done
};

class BlockStore {
 public:
  using Done = std::function<void(absl::Status)>;
  virtual ~BlockStore() = default;

  virtual int slots() const = 0;

  // Puts the sealed block that lies in `page` into `slot`, whose former block is gone from the time
  // of the call. The page may be reused meanwhile, if its owner calls InvalidateBlock first: then
  // ABORTED, as where it holds another block from the start. DATA_LOSS: it holds no block of this
  // layout (whether its payload matches its seal shows at the latest when it is read).
  // RESOURCE_EXHAUSTED: too many writes are queued, or the device is full. UNAVAILABLE: the device
  // refuses writes. Where it is not OK the slot holds nothing.
  virtual void Write(int32_t slot, const BlockRecord& record, std::span<const std::byte> page,
                     Done done) = 0;

  // Copies the block in `slot` to `page` and verifies it there: key, token count, layout, checksum.
  // Its epoch is the one it was written with: restamp before use. `page` is undefined where it is
  // not OK. NOT_FOUND: the slot holds nothing, or another key. DATA_LOSS: it holds something else
  // than what was written, and nothing from now on. RESOURCE_EXHAUSTED: too many reads are queued.
  // DEADLINE_EXCEEDED: it was not begun by `deadline`. UNAVAILABLE: the device cannot be read.
  virtual void Read(int32_t slot, const BlockKey& key, std::span<std::byte> page,
                    absl::Time deadline, Done done) = 0;

  // Forgets the block in `slot`, if there is one. What was called before is not disturbed.
  virtual void Erase(int32_t slot) = 0;

  virtual BlockStoreStats Stats() const = 0;
};

// A store whose blocks outlive the process.
class PersistentBlockStore : public BlockStore {
 public:
  struct Recovered {
    int32_t slot = -1;
    BlockRecord record;
  };
  // Some of the blocks; `percent` says how much of the index has been read. Least recently used
  // first is not promised.
  using OnRecovered = std::function<void(std::vector<Recovered> blocks, double percent)>;

  // Reads the index in the background and tells what lies here; `done` runs after the last call of
  // `recovered`. To be called once, before anything else. Blocks that were told of may be read and
  // erased at once; nothing may be written before `done`. A block that was written to two slots is
  // told of twice; `uses` and `last_use` may lack the last second before a crash. Payloads are not
  // looked at: what was torn shows when it is read. An index that cannot be read is dropped, and
  // says so in the log: the store is empty then, or has what was told of so far, and `done` OK.
  // UNAVAILABLE: the device cannot be used at all. CANCELLED: the store was destroyed.
  virtual void Recover(OnRecovered recovered, Done done) = 0;

  // Memory that pages of calls lie in. A device that hangs may touch it after the store has gone:
  // it is kept as long.
  virtual void Retain(std::shared_ptr<const void> memory) = 0;
};

}  // namespace tarn::kvstore
