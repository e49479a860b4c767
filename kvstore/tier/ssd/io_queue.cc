#include "kvstore/tier/ssd/io_queue.h"

#include <algorithm>
#include <utility>

namespace tarn::kvstore {

void IoQueue::Push(FileOp op) {
  MutexLock lock(mutex_);
  (op.write ? writes_ : reads_).push_back(std::move(op));
}

// A request waits for a read, nobody for a write; but a quarter of them goes on, or a busy store
// would never learn anything.
int IoQueue::WriteLimit() const {
  const bool reading = reads_active_ > 0 || !reads_.empty();
  return reading ? std::max(1, write_depth_ / 4) : write_depth_;
}

std::optional<FileOp> IoQueue::Pop() {
  MutexLock lock(mutex_);
  const bool read = !reads_.empty() && reads_active_ < read_depth_;
  if (!read && (writes_.empty() || writes_active_ >= WriteLimit())) return std::nullopt;
  std::deque<FileOp>& from = read ? reads_ : writes_;
  FileOp op = std::move(from.front());
  from.pop_front();
  ++(read ? reads_active_ : writes_active_);
  return op;
}

std::optional<FileOp> IoQueue::TryTake() {
  while (std::optional<FileOp> op = Pop()) {
    if (op->begin()) return op;
    Ended(op->write);
  }
  return std::nullopt;
}

void IoQueue::Ended(bool write) {
  MutexLock lock(mutex_);
  --(write ? writes_active_ : reads_active_);
}

bool IoQueue::Idle() const {
  MutexLock lock(mutex_);
  return reads_.empty() && writes_.empty() && reads_active_ + writes_active_ == 0;
}

}  // namespace tarn::kvstore
