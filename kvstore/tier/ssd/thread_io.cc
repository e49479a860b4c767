#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "kvstore/tier/ssd/file_io.h"
#include "kvstore/tier/ssd/io_queue.h"

namespace tarn::kvstore {
namespace {

// 0, or the errno.
int Move(int fd, const FileOp& op) {
  size_t moved = 0;
  while (moved < op.bytes.size()) {
    std::byte* at = op.bytes.data() + moved;
    const size_t left = op.bytes.size() - moved;
    const auto offset = static_cast<off_t>(op.offset + moved);
    const ssize_t n = op.write ? pwrite(fd, at, left, offset) : pread(fd, at, left, offset);
    if (n == 0) return ENODATA;
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) moved += static_cast<size_t>(n);
  }
  return 0;
}

class ThreadIo : public FileIo {
 public:
  explicit ThreadIo(const FileIoOptions& options)
      : fd_(options.fd), queue_(options.read_depth, options.write_depth) {
    for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Run(); });
  }

  ~ThreadIo() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  void Submit(FileOp op) override {
    queue_.Push(std::move(op));
    Change();
  }

 private:
  void Run() {
    while (true) {
      const uint64_t seen = changes();
      if (std::optional<FileOp> op = queue_.TryTake()) {
        const int error = Move(fd_, *op);
        queue_.Ended(op->write);
        Change();
        op->done(error);
        continue;
      }
      MutexLock lock(mutex_);
      while (changes_ == seen && !stopping_) changed_.wait(mutex_);
      if (stopping_ && queue_.Idle()) return;
      while (changes_ == seen) changed_.wait(mutex_);
    }
  }

  // Something was queued, or may start now.
  void Change() {
    MutexLock lock(mutex_);
    ++changes_;
    changed_.notify_all();
  }

  uint64_t changes() {
    MutexLock lock(mutex_);
    return changes_;
  }

  const int fd_;
  IoQueue queue_;
  Mutex mutex_;
  ConditionVariable changed_;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<FileIo> MakeThreadIo(const FileIoOptions& options) {
  return std::make_unique<ThreadIo>(options);
}

}  // namespace tarn::kvstore
