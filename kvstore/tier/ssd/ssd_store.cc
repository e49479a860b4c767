#include "kvstore/tier/ssd/ssd_store.h"

#include <glog/logging.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "kvstore/tier/ssd/file_io.h"
#include "kvstore/tier/ssd/index_writer.h"
#include "kvstore/tier/ssd/slot_file.h"
#include "kvstore/tier/ssd/ssd_index.h"

namespace tarn::kvstore {
namespace {

absl::Status CheckOptions(const SsdStoreOptions& options) {
  RETURN_IF_ERROR(options.layout.Validate());
  if (options.capacity_bytes < options.layout.page_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("capacity_bytes is ", options.capacity_bytes,
                                                   ", one slot takes ",
                                                   options.layout.page_bytes()));
  }
  if (options.capacity_bytes / options.layout.page_bytes() > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("capacity_bytes: more than ", INT32_MAX,
                                                   " slots of ", options.layout.page_bytes()));
  }
  if (options.read_depth <= 0 || options.write_depth <= 0) {
    return absl::InvalidArgumentError("read_depth and write_depth must be positive");
  }
  return absl::OkStatus();
}

absl::Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directory(directory, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(directory, " cannot be made: ", error.message()));
}

Superblock SuperblockOf(const SsdStoreOptions& options) {
  return {.layout_fingerprint = options.layout.Fingerprint(),
          .model_fingerprint = options.model_fingerprint,
          .slot_bytes = options.layout.page_bytes(),
          .layout = options.layout.ToString()};
}

// Of a write that the system refused.
absl::Status WriteError(int error, int32_t slot) {
  const std::string text = absl::StrCat("slot ", slot, " cannot be written: ", strerror(error));
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return full ? absl::ResourceExhaustedError(text) : absl::UnavailableError(text);
}

}  // namespace

// The loop, for threads that may outlive it. Thread-safe.
class LoopGate {
 public:
  explicit LoopGate(EventLoop* loop) : loop_(loop) {}
  void Close() {
    MutexLock lock(mutex_);
    loop_ = nullptr;
  }
  // Runs `use` with the loop, which stays meanwhile; not if the gate is closed.
  template <typename Use>
  void With(const Use& use) {
    MutexLock lock(mutex_);
    if (loop_ != nullptr) use(loop_);
  }

 private:
  Mutex mutex_;
  EventLoop* loop_ ABSL_GUARDED_BY(mutex_);
};

// Moves pages between file and memory, on threads of the FileIo.
class SsdStore::Device : public SlotDevice {
 public:
  explicit Device(const BlockLayout& layout, EventLoop* loop)
      : layout_(layout), gate_(std::make_shared<LoopGate>(loop)) {}

  void Attach(const std::shared_ptr<SlotQueue>& queue) { queue_ = queue; }

  absl::StatusOr<std::string> Open(const SsdStoreOptions& options, int slots) {
    RETURN_IF_ERROR(MakeDirectory(options.directory));
    RETURN_IF_ERROR(MakeDirectory(options.directory + "/index"));
    // First: it has the lock, and knows whether the file is of this layout.
    ASSIGN_OR_RETURN(
        std::unique_ptr<SsdIndex> index,
        SsdIndex::Open(options.directory + "/index", SuperblockOf(options), options.index_env));
    const uint64_t bytes = uint64_t{layout_.page_bytes()} * slots;
    ASSIGN_OR_RETURN(SlotFile file, SlotFile::Open(options.directory + "/slots", bytes));
    const auto found =
        static_cast<int>(std::min<uint64_t>(slots, file.bytes_found() / layout_.page_bytes()));
    file_ = std::make_unique<SlotFile>(std::move(file));
    ASSIGN_OR_RETURN(std::string name, OpenIo(options));
    writer_ = std::make_unique<IndexWriter>(std::move(index), slots, found);
    return absl::StrCat(name, file_->direct() ? ", direct" : ", through the page cache");
  }

  void Retain(std::shared_ptr<const void> memory) { retained_.push_back(std::move(memory)); }

  // Ends what the disk is doing, then writes the index, on a thread that has the device for itself
  // from now on. False: that takes longer than `limit`, and goes on without the loop.
  static bool Close(const std::shared_ptr<Device>& device, absl::Duration limit) {
    auto closed = std::make_shared<std::promise<void>>();
    std::future<void> future = closed->get_future();
    std::thread closing([device, closed] {
      device->io_.reset();
      device->writer_.reset();
      closed->set_value();
    });
    if (future.wait_for(absl::ToChronoNanoseconds(limit)) == std::future_status::ready) {
      closing.join();
      return true;
    }
    closing.detach();
    device->gate_->Close();
    return false;
  }

  const std::shared_ptr<LoopGate>& gate() const { return gate_; }

  void Start(std::shared_ptr<SlotOp> op) override {
    op->kind == SlotOp::Kind::kRead ? Read(op) : Write(op);
  }
  void Erase(int32_t slot) override { writer_->Erase(slot); }

  IndexWriter& writer() { return *writer_; }
  uint64_t written_bytes() const { return written_bytes_; }

 private:
  absl::StatusOr<std::string> OpenIo(const SsdStoreOptions& options) {
    const FileIoOptions io{.fd = file_->fd(),
                           .read_depth = options.read_depth,
                           .write_depth = options.write_depth,
                           .memory = options.memory};
    std::string name = "threads";
    if (options.io != SsdStoreOptions::Io::kThreads) {
      absl::StatusOr<std::unique_ptr<FileIo>> uring = MakeUringIo(io);
      if (uring.ok()) {
        io_ = *std::move(uring);
        name = "io_uring";
      } else if (options.io == SsdStoreOptions::Io::kUring) {
        return uring.status();
      } else {
        LOG(WARNING) << "SSD tier: " << Message(uring.status())
                     << ": threads read and write instead, at more CPU time";
      }
    }
    if (io_ == nullptr) io_ = MakeThreadIo(io);
    if (options.wrap_io) io_ = options.wrap_io(std::move(io_));
    return name;
  }

  uint64_t OffsetOf(int32_t slot) const { return uint64_t{layout_.page_bytes()} * slot; }

  void Read(const std::shared_ptr<SlotOp>& op) {
    io_->Submit({.offset = OffsetOf(op->slot),
                 .bytes = op->page,
                 .begin = [op] { return op->Claim(); },
                 .done = [this, op, queue = queue_.lock()](
                             int error) { PostFinish(*queue, op, EndRead(*op, error)); }});
  }

  void PostFinish(SlotQueue& queue, const std::shared_ptr<SlotOp>& op, const absl::Status& status) {
    gate_->With([&](EventLoop*) { queue.PostFinish(op, status); });
  }

  absl::Status EndRead(const SlotOp& op, int error) {
    if (error != 0 && error != ENODATA) {
      absl::Status status = absl::UnavailableError(
          absl::StrCat("slot ", op.slot, " cannot be read: ", strerror(error)));
      LOG_EVERY_N(ERROR, 100) << "SSD tier: " << Message(status);
      return status;
    }
    absl::Status status = error == ENODATA ? absl::DataLossError("the slot file ends before it")
                                           : VerifyStored(layout_, op.identity, op.page);
    if (status.ok()) {
      gate_->With([&](EventLoop* loop) { writer_->Touch(op.slot, loop->Now()); });
      return status;
    }
    status = Annotate(status, absl::StrCat("slot ", op.slot));
    LOG_EVERY_N(WARNING, 100) << "SSD tier: " << Message(status) << ": the block is dropped";
    writer_->Erase(op.slot);
    return status;
  }

  void Write(const std::shared_ptr<SlotOp>& op) {
    const uint64_t checksum = HeaderOf(op->page).checksum;
    io_->Submit(
        {.write = true,
         .offset = OffsetOf(op->slot),
         .bytes = op->page,
         .begin = [op] { return op->Claim(); },
         .done = [this, op, checksum, queue = queue_.lock()](
                     int error) { PostFinish(*queue, op, EndWrite(*op, checksum, error)); }});
  }

  absl::Status EndWrite(const SlotOp& op, uint64_t checksum, int error) {
    absl::Status status;
    if (error != 0) {
      status = WriteError(error, op.slot);
      LOG_EVERY_N(ERROR, 100) << "SSD tier: " << Message(status);
    } else {
      written_bytes_ += op.page.size();
      // Still sealed: so nothing has changed since before the disk read the page.
      status = VerifyHeader(layout_, op.identity, op.page);
    }
    if (!status.ok()) {
      writer_->Erase(op.slot);
      return status;
    }
    writer_->Put(op.slot, {.block = op.record,
                           .epoch = op.identity.epoch,
                           .checksum = checksum,
                           .size = layout_.page_bytes()});
    return status;
  }

  const BlockLayout layout_;
  const std::shared_ptr<LoopGate> gate_;
  std::weak_ptr<SlotQueue> queue_;
  std::vector<std::shared_ptr<const void>> retained_;
  std::atomic<uint64_t> written_bytes_ = 0;
  std::unique_ptr<SlotFile> file_;
  std::unique_ptr<IndexWriter> writer_;
  std::unique_ptr<FileIo> io_;  // first to go: its ops use the rest
};

absl::StatusOr<std::unique_ptr<SsdStore>> SsdStore::Open(const SsdStoreOptions& options,
                                                         EventLoop* loop) {
  RETURN_IF_ERROR(CheckOptions(options));
  const auto slots = static_cast<int>(options.capacity_bytes / options.layout.page_bytes());
  auto device = std::make_shared<Device>(options.layout, loop);
  ASSIGN_OR_RETURN(const std::string io_name, device->Open(options, slots));
  LOG(INFO) << "SSD tier: " << slots << " slots of " << options.layout.page_bytes() << " bytes in "
            << options.directory << " (" << io_name << ")";
  auto queue = SlotQueue::Make({options.layout, slots, options.max_reads, options.max_writes}, loop,
                               device.get());
  device->Attach(queue);
  return std::unique_ptr<SsdStore>(
      new SsdStore(std::move(device), std::move(queue), options, io_name));
}

SsdStore::SsdStore(std::shared_ptr<Device> device, std::shared_ptr<SlotQueue> queue,
                   const SsdStoreOptions& options, std::string io_name)
    : QueuedStore(std::move(queue)),
      device_(std::move(device)),
      directory_(options.directory),
      close_timeout_(options.close_timeout),
      io_name_(std::move(io_name)) {}

SsdStore::~SsdStore() {
  queue_->Close();
  if (Device::Close(device_, close_timeout_)) return;
  LOG(ERROR) << "SSD tier: the disk of " << directory_ << " has not ended its reads and writes in "
             << close_timeout_ << ": they are left behind, with their memory";
}

void SsdStore::Retain(std::shared_ptr<const void> memory) { device_->Retain(std::move(memory)); }

BlockStoreStats SsdStore::Stats() const {
  BlockStoreStats stats = queue_->stats();
  IndexWriter& writer = device_->writer();
  stats.device_written_bytes = device_->written_bytes() + writer.written_bytes();
  stats.index_errors = writer.errors();
  stats.records_dropped = writer.records_dropped();
  stats.indexes_dropped = writer.indexes_dropped();
  return stats;
}

void SsdStore::Recover(OnRecovered recovered, Done done) {
  auto tell = [gate = device_->gate(), queue = queue_, device = std::weak_ptr<Device>(device_),
               recovered = std::move(recovered)](std::vector<IndexWriter::Recovered> batch,
                                                 double percent) {
    auto told = [queue, device, recovered, batch = std::move(batch), percent]() mutable {
      if (queue->closed()) return;
      device.lock()->writer().Taken();
      std::vector<Recovered> blocks;
      blocks.reserve(batch.size());
      for (IndexWriter::Recovered& block : batch) {
        BlockRecord& record = block.record.block;
        queue->Put(block.slot, {record.key, block.record.epoch, record.token_count});
        blocks.push_back({block.slot, std::move(record)});
      }
      recovered(std::move(blocks), percent);
    };
    gate->With([&](EventLoop* loop) { loop->Post(std::move(told)); });
  };
  device_->writer().Recover(std::move(tell), [gate = device_->gate(), queue = queue_,
                                              done = std::move(done)](const absl::Status& status) {
    gate->With([&](EventLoop* loop) {
      loop->Post([queue, done, status] {
        done(queue->closed() ? absl::CancelledError("the store is closed") : status);
      });
    });
  });
}

}  // namespace tarn::kvstore
