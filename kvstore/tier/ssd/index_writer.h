#pragma once

// The thread that uses the SSD tier's index. Private to ssd/.
//
// Changes are merged by slot while they wait, so that no more than one a slot does, and written in
// batches; what cannot be written is tried again every `retry`. Thread-safe; does not block, but
// for the destructor, which writes what is waiting, once.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "kvstore/tier/ssd/ssd_index.h"

namespace tarn::kvstore {

class IndexWriter {
 public:
  struct Recovered {
    int32_t slot = -1;
    IndexRecord record;
  };
  // Runs on the thread of the writer. `percent` of the index has been read.
  using OnRecovered = std::function<void(std::vector<Recovered> batch, double percent)>;

  // `file_slots`: those whose bytes were there before the file was made to fit `slots`; records of
  // other slots are dropped.
  IndexWriter(std::unique_ptr<SsdIndex> index, int slots, int file_slots,
              absl::Duration retry = absl::Seconds(1));
  ~IndexWriter();

  // Reads the index; `done` after the last `recovered`, sooner where the writer is destroyed.
  // Before anything else, once. A batch waits until fewer than `kAhead` are not Taken.
  void Recover(OnRecovered recovered, std::function<void(absl::Status)> done);
  static constexpr int kAhead = 8;
  void Taken();

  // `record.sequence` is given here.
  void Put(int32_t slot, IndexRecord record);
  void Erase(int32_t slot);
  // The block in the slot was read.
  void Touch(int32_t slot, absl::Time now);

  uint64_t errors() const { return errors_; }
  uint64_t records_dropped() const { return records_dropped_; }
  uint64_t indexes_dropped() const { return indexes_dropped_; }
  uint64_t written_bytes() const { return index_->written_bytes(); }

 private:
  // Of the block that lies in a slot.
  struct Use {
    uint64_t sequence = 0;
    uint32_t uses = 0;
  };
  using Pending = absl::flat_hash_map<int32_t, SsdIndex::Change>;

  void Run();
  bool RunRecover();
  // Records of one scan, handed on in batches.
  class Scan;
  // What to write now; waits for it. Empty: the writer ends.
  std::vector<SsdIndex::Change> NextBatch();
  std::chrono::nanoseconds Patience() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Want(SsdIndex::Change change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PutBack(std::vector<SsdIndex::Change> changes);
  bool stopping() const;
  void WaitForTaken();

  const std::unique_ptr<SsdIndex> index_;
  const int file_slots_;
  const absl::Duration retry_;
  std::atomic<uint64_t> errors_ = 0, records_dropped_ = 0, indexes_dropped_ = 0;

  mutable Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool recovering_ ABSL_GUARDED_BY(mutex_) = false;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;  // the last batch
  int ahead_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t urgent_ ABSL_GUARDED_BY(mutex_) = 0;  // pending changes that are more than heat
  uint64_t last_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  Pending pending_ ABSL_GUARDED_BY(mutex_);
  std::vector<Use> uses_ ABSL_GUARDED_BY(mutex_);
  OnRecovered recovered_;
  std::function<void(absl::Status)> recover_done_;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace tarn::kvstore
