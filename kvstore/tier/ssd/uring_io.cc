#include <glog/logging.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kvstore/tier/ssd/file_io.h"
#include "kvstore/tier/ssd/io_queue.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kMaxBuffer = size_t{1} << 30;  // of one registered buffer: the kernel's limit
constexpr size_t kMaxBuffers = 1024;
constexpr uint64_t kWake = UINT64_MAX;  // user data of the poll that Submit ends

// The memory of ops, in pieces that the kernel takes.
std::vector<iovec> PiecesOf(const std::vector<std::span<std::byte>>& memory) {
  std::vector<iovec> pieces;
  for (std::span<std::byte> left : memory) {
    while (!left.empty()) {
      const size_t size = std::min(left.size(), kMaxBuffer);
      pieces.push_back({left.data(), size});
      left = left.subspan(size);
    }
  }
  return pieces;
}

// One thread owns the ring; it sleeps in the kernel until an op ends or Submit wakes it.
class UringIo : public FileIo {
 public:
  UringIo(const FileIoOptions& options, const io_uring& ring, int wake)
      : fd_(options.fd),
        wake_(wake),
        ring_(ring),
        queue_(options.read_depth, options.write_depth),
        ops_(options.read_depth + options.write_depth) {
    for (size_t i = ops_.size(); i > 0; --i) free_.push_back(i - 1);
    RegisterMemory(options.memory);
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), "ssd-io");
  }

  ~UringIo() override {
    stopping_ = true;
    Wake();
    thread_.join();
    io_uring_queue_exit(&ring_);
    close(wake_);
  }

  void Submit(FileOp op) override {
    queue_.Push(std::move(op));
    if (asleep_.exchange(false)) Wake();
  }

 private:
  struct Active {
    FileOp op;
    size_t moved = 0;
  };
  struct Ended {
    FileOp op;
    int error = 0;
  };

  void RegisterMemory(const std::vector<std::span<std::byte>>& memory) {
    std::vector<iovec> pieces = PiecesOf(memory);
    if (pieces.empty() || pieces.size() > kMaxBuffers) return;
    const int error = io_uring_register_buffers(&ring_, pieces.data(), pieces.size());
    if (error == 0) {
      buffers_ = std::move(pieces);
    } else {
      LOG(INFO) << "SSD tier: its memory is not registered with io_uring (" << strerror(-error)
                << "; RLIMIT_MEMLOCK): somewhat more CPU time a read";
    }
  }

  void Wake() {
    const uint64_t one = 1;
    // Cannot fail but by an overflow, and then it is awake.
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
  }

  void Run() {
    ArmWake();
    while (true) {
      asleep_ = true;  // before the last look at the queue: what comes later wakes
      Fill();
      if (stopping_ && queue_.Idle()) return;
      SubmitAndWait(1);
      asleep_ = false;
      std::vector<Ended> ended = Reap();
      // The device goes on while the results are looked at.
      Fill();
      SubmitAndWait(0);
      for (Ended& end : ended) end.op.done(end.error);
    }
  }

  void SubmitAndWait(unsigned count) {
    const int result = io_uring_submit_and_wait(&ring_, count);
    CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY)
        << "io_uring: " << strerror(-result);
  }

  void ArmWake() {
    io_uring_sqe* entry = NextEntry();
    io_uring_prep_poll_add(entry, wake_, POLLIN);
    io_uring_sqe_set_data64(entry, kWake);
  }

  io_uring_sqe* NextEntry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
      SubmitAndWait(0);
      entry = io_uring_get_sqe(&ring_);
    }
    return entry;
  }

  // Depths bound what is under way, so there is a place for each op that the queue gives.
  void Fill() {
    while (std::optional<FileOp> op = queue_.TryTake()) {
      const size_t index = free_.back();
      free_.pop_back();
      ops_[index] = {std::move(*op), 0};
      Prepare(index);
    }
  }

  // What is left of the op.
  void Prepare(size_t index) {
    const Active& active = ops_[index];
    const std::span<std::byte> bytes = active.op.bytes.subspan(active.moved);
    const uint64_t offset = active.op.offset + active.moved;
    const auto size = static_cast<unsigned>(std::min<size_t>(bytes.size(), kMaxBuffer));
    const int buffer = BufferOf(bytes.first(size));
    io_uring_sqe* entry = NextEntry();
    if (active.op.write) {
      buffer < 0 ? io_uring_prep_write(entry, fd_, bytes.data(), size, offset)
                 : io_uring_prep_write_fixed(entry, fd_, bytes.data(), size, offset, buffer);
    } else {
      buffer < 0 ? io_uring_prep_read(entry, fd_, bytes.data(), size, offset)
                 : io_uring_prep_read_fixed(entry, fd_, bytes.data(), size, offset, buffer);
    }
    io_uring_sqe_set_data64(entry, index);
  }

  // The registered buffer that holds all of `bytes`, or -1.
  int BufferOf(std::span<const std::byte> bytes) const {
    for (size_t i = 0; i < buffers_.size(); ++i) {
      const auto* base = static_cast<const std::byte*>(buffers_[i].iov_base);
      if (bytes.data() >= base && bytes.data() + bytes.size() <= base + buffers_[i].iov_len) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  std::vector<Ended> Reap() {
    std::vector<Ended> ended;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t index = io_uring_cqe_get_data64(cqe);
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      index == kWake ? Woken() : Advance(index, result, ended);
    }
    return ended;
  }

  void Woken() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(wake_, &count, sizeof(count));
    ArmWake();
  }

  void Advance(size_t index, int result, std::vector<Ended>& ended) {
    Active& active = ops_[index];
    if (result > 0) active.moved += static_cast<size_t>(result);
    const bool whole = active.moved >= active.op.bytes.size();
    const bool again = result == -EINTR || result == -EAGAIN || (result > 0 && !whole);
    if (again) return Prepare(index);
    queue_.Ended(active.op.write);
    ended.push_back({std::move(active.op), result == 0 ? ENODATA : std::max(0, -result)});
    free_.push_back(index);
  }

  const int fd_;
  const int wake_;
  io_uring ring_;
  std::vector<iovec> buffers_;
  IoQueue queue_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> asleep_ = false;  // the thread, or soon

  // Of the thread.
  std::vector<Active> ops_;
  std::vector<size_t> free_;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace

absl::StatusOr<std::unique_ptr<FileIo>> MakeUringIo(const FileIoOptions& options) {
  io_uring ring;
  const unsigned entries = options.read_depth + options.write_depth + 1;
  const int error = io_uring_queue_init(entries, &ring, 0);
  if (error < 0) return absl::UnavailableError(absl::StrCat("io_uring: ", strerror(-error)));
  const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake < 0) {
    io_uring_queue_exit(&ring);
    return absl::UnavailableError(absl::StrCat("eventfd: ", strerror(errno)));
  }
  return std::make_unique<UringIo>(options, ring, wake);
}

}  // namespace tarn::kvstore
