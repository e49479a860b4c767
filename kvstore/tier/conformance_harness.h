#pragma once

// What the conformance suites of block stores stand on: a loop that the test drives, a harness that
// makes stores and reaches their bytes, and calls that are watched.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "kvstore/tier/block_store.h"

namespace tarn::kvstore {

// A loop that a test drives.
class LoopDriver {
 public:
  virtual ~LoopDriver() = default;
  virtual EventLoop& loop() = 0;
  // Runs `task` on the loop and waits for it.
  virtual void OnLoop(const std::function<void()>& task) = 0;
  // Waits until `done` holds, which is asked on the loop after each task or change; false: it did
  // not in time.
  virtual bool RunUntil(const std::function<bool()>& done) = 0;
  // Lets the time pass.
  virtual void Pass(absl::Duration duration) = 0;
  // What RunUntil waits for has perhaps come true. On the loop.
  virtual void Changed() {}
  // No task runs any more.
  virtual void Stop() = 0;
};

class SimLoopDriver : public LoopDriver {
 public:
  EventLoop& loop() override { return loop_; }
  SimEventLoop& sim() { return loop_; }
  void OnLoop(const std::function<void()>& task) override { task(); }
  bool RunUntil(const std::function<bool()>& done) override { return loop_.RunUntil(done); }
  void Pass(absl::Duration duration) override { loop_.RunFor(duration); }
  void Stop() override {}

 private:
  SimEventLoop loop_;
};

class RealLoopDriver : public LoopDriver {
 public:
  ~RealLoopDriver() override { loop_.Stop(); }
  EventLoop& loop() override { return loop_; }

  void OnLoop(const std::function<void()>& task) override { RunOnLoop(loop_, task); }

  bool RunUntil(const std::function<bool()>& done) override {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (bool holds = false; true;) {
      const uint64_t seen = changes();
      OnLoop([&] { holds = done(); });
      if (holds) return true;
      MutexLock lock(mutex_);
      while (changes_ == seen) {
        if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) return false;
      }
    }
  }

  void Pass(absl::Duration duration) override {
    bool passed = false;
    OnLoop([&] {
      loop_.PostAfter(duration, [&] {
        passed = true;
        Changed();
      });
    });
    EXPECT_TRUE(RunUntil([&] { return passed; }));
  }

  void Changed() override {
    MutexLock lock(mutex_);
    ++changes_;
    changed_.notify_all();
  }

  void Stop() override { loop_.Stop(); }

 private:
  uint64_t changes() {
    MutexLock lock(mutex_);
    return changes_;
  }

  Mutex mutex_;
  ConditionVariable changed_;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  RealEventLoop loop_{"store-test"};
};

// Makes stores, one at a time, and reaches what they lie on. Outlives them.
class BlockStoreHarness {
 public:
  struct Limits {
    int slots = 8;
    int max_reads = 64;
    int max_writes = 64;
  };
  static constexpr int kPages = 64;

  virtual ~BlockStoreHarness() = default;
  virtual LoopDriver& driver() = 0;
  // kPages pages of the layout, aligned to 4 KiB, that calls may name.
  virtual std::span<std::byte> pages() = 0;

  // Not on the loop. Ready for calls. Of a persistent store: with the blocks that its last life
  // left.
  virtual std::unique_ptr<BlockStore> Make(const Limits& limits) = 0;

  // Flips a bit of what lies in the slot, at `offset` in its page.
  virtual void Damage(BlockStore& store, int32_t slot, size_t offset) = 0;
  // While held back the device begins nothing. False: this one cannot be; what needs it is skipped.
  virtual bool HoldBack(BlockStore& store, bool held_back) = 0;

  static const BlockLayout& layout() {
    static const BlockLayout layout{
        .layers = 1, .kv_heads = 2, .head_dim = 32, .block_tokens = 16, .type = KvType::kF32};
    return layout;
  }
};

class PersistentBlockStoreHarness : public BlockStoreHarness {
 public:
  // Not on the loop. Not recovered yet.
  virtual std::unique_ptr<PersistentBlockStore> MakeUnrecovered(const Limits& limits) = 0;

  std::unique_ptr<BlockStore> Make(const Limits& limits) override {
    std::unique_ptr<PersistentBlockStore> store = MakeUnrecovered(limits);
    std::optional<absl::Status> done;
    driver().OnLoop([&] {
      store->Recover([](auto, double) {},
                     [&](absl::Status status) {
                       done = std::move(status);
                       driver().Changed();
                     });
    });
    EXPECT_TRUE(driver().RunUntil([&] { return done.has_value(); }));
    EXPECT_TRUE(done.has_value() && done->ok());
    return store;
  }
};

using BlockStoreHarnessFactory = std::unique_ptr<BlockStoreHarness> (*)();
using PersistentBlockStoreHarnessFactory = std::unique_ptr<PersistentBlockStoreHarness> (*)();

// Pages for a store that takes any memory.
class PlainPages {
 public:
  explicit PlainPages(size_t bytes)
      : bytes_(bytes), memory_(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)), &free) {
    std::memset(memory_.get(), 0, bytes);
  }
  PlainPages() : PlainPages(BlockStoreHarness::layout().page_bytes() * BlockStoreHarness::kPages) {}
  std::span<std::byte> bytes() const { return {memory_.get(), bytes_}; }

 private:
  const size_t bytes_;
  const std::unique_ptr<std::byte, void (*)(void*)> memory_;
};

// The key of the block that a number stands for in these tests, and the bytes of that block.
inline BlockKey TestKey(uint32_t number) {
  const TokenId token = static_cast<TokenId>(number);
  return ChildKey(BlockKey{}, {&token, 1});
}

inline BlockRecord TestRecord(uint32_t number, uint32_t tokens = 16) {
  return {
      .key = TestKey(number),
      .parent = number % 2 == 0 ? std::nullopt : std::optional(TestKey(number - 1)),
      .token_count = tokens,
      .traits = {TenantId("tenant-" + std::to_string(number % 3)), number, number + 1, number + 2},
      .last_use = absl::FromUnixSeconds(900'000'000 + number)};
}

inline void SealTestBlock(const BlockLayout& layout, uint32_t number, std::span<std::byte> page,
                          uint64_t epoch = 1, uint32_t tokens = 16) {
  InvalidateBlock(page);
  Random(number).Fill(page.subspan(layout.payload_offset(), layout.payload_bytes()));
  SealBlock(layout, {TestKey(number), epoch, tokens}, page);
}

// How one call ended.
struct StoreOutcome {
  int times = 0;
  absl::Status status;
};

// What both suites call stores by.
class BlockStoreCaller {
 protected:
  using Outcome = std::shared_ptr<StoreOutcome>;
  using enum absl::StatusCode;

  explicit BlockStoreCaller(std::unique_ptr<BlockStoreHarness> harness)
      : harness_(std::move(harness)) {}
  ~BlockStoreCaller() { Destroy(); }

  LoopDriver& driver() { return harness_->driver(); }
  static const BlockLayout& layout() { return BlockStoreHarness::layout(); }
  std::span<std::byte> Page(int index) {
    return harness_->pages().subspan(index * layout().page_bytes(), layout().page_bytes());
  }
  std::span<std::byte> PayloadOf(std::span<std::byte> page) {
    return page.subspan(layout().payload_offset(), layout().payload_bytes());
  }
  void OnLoop(const std::function<void()>& task) { driver().OnLoop(task); }

  void Make(const BlockStoreHarness::Limits& limits = {}) { store_ = harness_->Make(limits); }
  void Destroy() {
    if (store_ != nullptr) OnLoop([this] { store_.reset(); });
  }

  // A `done` that notes how often it ran, and complains where that is during a call.
  BlockStore::Done Note(const Outcome& outcome) {
    return [this, outcome](absl::Status status) {
      EXPECT_FALSE(calling_) << "done ran inside a call";
      EXPECT_TRUE(driver().loop().OnLoop());
      EXPECT_EQ(++outcome->times, 1) << "done ran again";
      outcome->status = std::move(status);
      driver().Changed();
    };
  }

  // The following are called on the loop.
  Outcome StartWrite(int32_t slot, uint32_t number, int page, uint32_t tokens = 16) {
    auto outcome = std::make_shared<StoreOutcome>();
    calling_ = true;
    store_->Write(slot, TestRecord(number, tokens), Page(page), Note(outcome));
    calling_ = false;
    return outcome;
  }
  Outcome StartRead(int32_t slot, uint32_t number, int page,
                    absl::Time deadline = absl::InfiniteFuture()) {
    auto outcome = std::make_shared<StoreOutcome>();
    calling_ = true;
    store_->Read(slot, TestKey(number), Page(page), deadline, Note(outcome));
    calling_ = false;
    return outcome;
  }
  void Erase(int32_t slot) { store_->Erase(slot); }

  void Await(const std::vector<Outcome>& outcomes) {
    EXPECT_TRUE(driver().RunUntil([&] {
      return std::all_of(outcomes.begin(), outcomes.end(),
                         [](const Outcome& outcome) { return outcome->times > 0; });
    })) << "done did not run";
  }
  // The end of a call that `start` makes on the loop.
  absl::Status EndOf(const std::function<Outcome()>& start) {
    Outcome outcome;
    OnLoop([&] { outcome = start(); });
    Await({outcome});
    return outcome->status;
  }

  // The following wait. `page` is used on the way.
  absl::Status Write(int32_t slot, uint32_t number, int page = 0, uint64_t epoch = 1,
                     uint32_t tokens = 16) {
    OnLoop([&] { SealTestBlock(layout(), number, Page(page), epoch, tokens); });
    return EndOf([&] { return StartWrite(slot, number, page, tokens); });
  }
  absl::Status Read(int32_t slot, uint32_t number, int page = 1) {
    return EndOf([&] { return StartRead(slot, number, page); });
  }
  void ExpectHolds(int32_t slot, uint32_t number) {
    const absl::Status status = Read(slot, number);
    EXPECT_TRUE(status.ok()) << "slot " << slot << ": " << status;
    if (status.ok()) ExpectBlock(number, 1);
  }
  void ExpectHoldsNot(int32_t slot, uint32_t number) {
    EXPECT_EQ(Read(slot, number).code(), kNotFound);
  }
  void ExpectBlock(uint32_t number, int page, uint64_t epoch = 1, uint32_t tokens = 16) {
    EXPECT_TRUE(VerifyBlock(layout(), {TestKey(number), epoch, tokens}, Page(page)).ok());
    std::vector<std::byte> expected(layout().payload_bytes());
    Random(number).Fill(expected);
    const auto payload = PayloadOf(Page(page));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), payload.begin()));
  }
  void Damage(int32_t slot, size_t offset) { harness_->Damage(*store_, slot, offset); }
  BlockStoreStats Stats() {
    BlockStoreStats stats;
    OnLoop([&] { stats = store_->Stats(); });
    return stats;
  }

  std::unique_ptr<BlockStoreHarness> harness_;
  std::unique_ptr<BlockStore> store_;
  bool calling_ = false;
};

}  // namespace tarn::kvstore
