#pragma once

// The tier of blocks on a disk: a file of equal slots, and an index beside it in RocksDB.
//
//   DIRECTORY/slots   page of slot 0, page of slot 1, …   O_DIRECT, straight from and to the pages
//   DIRECTORY/index/  slot -> record, written in batches by a thread of its own
//
// Nothing is synced. What the index names either verifies when it is read, or is dropped then: a
// kill, a torn write, a flipped bit or a power cut cost the blocks that they hit. A page reaches
// the disk before its record reaches the index. Reads are verified on the I/O thread.
//
// Loop-only. The destructor blocks until the disk has ended what is under way (milliseconds), but
// no longer than `close_timeout`: a disk that hangs then keeps its thread, its file and the memory
// that was retained, for the kernel may still write there, and calls under way are never done.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "kvstore/tier/block_store.h"
#include "kvstore/tier/queued_store.h"

namespace rocksdb {
class Env;
}

namespace tarn::kvstore {

class FileIo;

struct SsdStoreOptions {
  enum class Io {
    kAuto,     // io_uring, threads where that is refused
    kUring,    // or UNAVAILABLE
    kThreads,  // pread and pwrite
  };

  std::string directory;        // made if it is not there; its parent is
  uint64_t capacity_bytes = 0;  // of the file; rounded down to whole slots
  BlockLayout layout;
  uint64_t model_fingerprint = 0;
  int max_reads = 1024;  // called, and not done
  int max_writes = 256;
  int read_depth = 64;  // under way in the system
  int write_depth = 16;
  absl::Duration close_timeout = absl::Seconds(5);
  Io io = Io::kAuto;
  // Memory that most pages lie in: spares the kernel their mapping, where RLIMIT_MEMLOCK allows.
  std::vector<std::span<std::byte>> memory;

  // For tests: what stands between the store and its file, and below its index.
  std::function<std::unique_ptr<FileIo>(std::unique_ptr<FileIo>)> wrap_io;
  rocksdb::Env* index_env = nullptr;
};

class SsdStore : public QueuedStore<PersistentBlockStore> {
 public:
  // Opens the directory and allocates the file; blocks. `loop` outlives the store.
  // FAILED_PRECONDITION: another process has it, or it holds blocks of another layout, model or
  // format; says what to do. RESOURCE_EXHAUSTED: says how much room is missing. UNAVAILABLE: it
  // cannot be read or written. INVALID_ARGUMENT: names the option.
  static absl::StatusOr<std::unique_ptr<SsdStore>> Open(const SsdStoreOptions& options,
                                                        EventLoop* loop);
  ~SsdStore() override;

  BlockStoreStats Stats() const override;
  void Recover(OnRecovered recovered, Done done) override;
  void Retain(std::shared_ptr<const void> memory) override;

  // "io_uring, direct": how the file is read and written.
  const std::string& io_name() const { return io_name_; }

 private:
  class Device;

  SsdStore(std::shared_ptr<Device> device, std::shared_ptr<SlotQueue> queue,
           const SsdStoreOptions& options, std::string io_name);

  const std::shared_ptr<Device> device_;
  const std::string directory_;
  const absl::Duration close_timeout_;
  const std::string io_name_;
};

}  // namespace tarn::kvstore
