#pragma once

// A FileIo whose ops wait or fail as a test says. For tests.

#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "kvstore/tier/ssd/file_io.h"

namespace tarn::kvstore {

// What a test holds of it; outlives the store. Thread-safe.
class FaultControl {
 public:
  // May change the op, or say with which errno it ends untried. Any thread.
  using Plan = std::function<std::optional<int>(FileOp& op)>;

  void SetPlan(Plan plan) {
    MutexLock lock(mutex_);
    plan_ = std::move(plan);
  }

  void HoldBack(bool held_back) {
    std::vector<std::pair<FileIo*, FileOp>> released;
    {
      MutexLock lock(mutex_);
      held_back_ = held_back;
      if (!held_back) released.swap(held_);
    }
    for (auto& [io, op] : released) io->Submit(std::move(op));
  }

  // Hands the op on, or ends it.
  void Submit(FileIo& base, FileOp op) {
    std::optional<int> error;
    {
      MutexLock lock(mutex_);
      if (held_back_) return held_.emplace_back(&base, std::move(op)), void();
      if (plan_) error = plan_(op);
    }
    if (!error.has_value()) return base.Submit(std::move(op));
    if (op.begin()) op.done(*error);
  }

  // The ops that wait for `base`, which goes.
  void Drop(FileIo& base) {
    MutexLock lock(mutex_);
    std::erase_if(held_, [&](const auto& held) { return held.first == &base; });
  }

 private:
  Mutex mutex_;
  bool held_back_ ABSL_GUARDED_BY(mutex_) = false;
  Plan plan_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<FileIo*, FileOp>> held_ ABSL_GUARDED_BY(mutex_);
};

// A disk that hangs: its ops begin, and end with EIO when the test says so.
class HungDisk {
 public:
  void Begin(FileOp op) {
    if (!op.begin()) return;
    MutexLock lock(mutex_);
    begun_.push_back(std::move(op));
  }
  // Blocks until the test says so, as the end of a ring does.
  void AwaitEnd() {
    std::vector<FileOp> begun;
    {
      MutexLock lock(mutex_);
      while (!released_) changed_.wait(mutex_);
      begun.swap(begun_);
    }
    for (FileOp& op : begun) op.done(EIO);
  }
  void Release() {
    MutexLock lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  size_t begun() {
    MutexLock lock(mutex_);
    return begun_.size();
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<FileOp> begun_ ABSL_GUARDED_BY(mutex_);
};

class HungIo : public FileIo {
 public:
  explicit HungIo(std::shared_ptr<HungDisk> disk) : disk_(std::move(disk)) {}
  ~HungIo() override { disk_->AwaitEnd(); }
  void Submit(FileOp op) override { disk_->Begin(std::move(op)); }

 private:
  const std::shared_ptr<HungDisk> disk_;
};

class FaultIo : public FileIo {
 public:
  FaultIo(std::unique_ptr<FileIo> base, FaultControl& control)
      : base_(std::move(base)), control_(control) {}
  ~FaultIo() override { control_.Drop(*base_); }
  void Submit(FileOp op) override { control_.Submit(*base_, std::move(op)); }

 private:
  const std::unique_ptr<FileIo> base_;
  FaultControl& control_;
};

}  // namespace tarn::kvstore
