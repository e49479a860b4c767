#pragma once

// Which op of a FileIo is next. Thread-safe; asks `begin` outside of its lock.

#include <deque>
#include <optional>

#include "common/base/mutex.h"
#include "kvstore/tier/ssd/file_io.h"

namespace tarn::kvstore {

class IoQueue {
 public:
  IoQueue(int read_depth, int write_depth) : read_depth_(read_depth), write_depth_(write_depth) {}

  void Push(FileOp op);
  // The next op that may start, if any: it counts as under way until Ended.
  std::optional<FileOp> TryTake();
  void Ended(bool write);
  // Nothing waits or is under way.
  bool Idle() const;

 private:
  std::optional<FileOp> Pop();
  int WriteLimit() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int read_depth_;
  const int write_depth_;
  mutable Mutex mutex_;
  std::deque<FileOp> reads_ ABSL_GUARDED_BY(mutex_);
  std::deque<FileOp> writes_ ABSL_GUARDED_BY(mutex_);
  int reads_active_ ABSL_GUARDED_BY(mutex_) = 0;
  int writes_active_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarn::kvstore
