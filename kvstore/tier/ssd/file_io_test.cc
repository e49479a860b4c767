#include "kvstore/tier/ssd/file_io.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "common/base/mutex.h"
#include "common/runtime/random.h"
#include "kvstore/tier/ssd/io_queue.h"
#include "kvstore/tier/ssd/scratch_directory.h"

namespace tarn::kvstore {
namespace {

using Factory = std::unique_ptr<FileIo> (*)(const FileIoOptions&);

std::unique_ptr<FileIo> Uring(const FileIoOptions& options) {
  absl::StatusOr<std::unique_ptr<FileIo>> io = MakeUringIo(options);
  return io.ok() ? *std::move(io) : nullptr;
}

constexpr size_t kBlock = 4096;

class FileIoTest : public testing::TestWithParam<Factory> {
 protected:
  FileIoTest() : memory_(static_cast<std::byte*>(std::aligned_alloc(kBlock, 64 * kBlock))) {
    PCHECK(fd_ >= 0);
    Random(1).Fill({memory_, 64 * kBlock});
  }
  ~FileIoTest() override {
    io_.reset();
    close(fd_);
    std::free(memory_);
  }

  void SetUp() override {
    io_ = GetParam()({.fd = fd_,
                      .read_depth = 4,
                      .write_depth = 3,
                      .threads = 3,
                      .memory = {{memory_, 32 * kBlock}}});
    if (io_ == nullptr) GTEST_SKIP() << "no io_uring here";
  }
  std::span<std::byte> Block(int index, int count = 1) {
    return {memory_ + index * kBlock, count * kBlock};
  }
  void Start(FileOp op) {
    op.begin = [] { return true; };
    op.done = [this](int error) {
      MutexLock lock(mutex_);
      errors_.push_back(error);
      ended_.notify_all();
    };
    io_->Submit(std::move(op));
  }
  std::vector<int> Await(size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mutex_);
    while (errors_.size() < count) {
      if (ended_.wait_until(mutex_, end) == std::cv_status::timeout) break;
    }
    EXPECT_EQ(errors_.size(), count);
    return std::exchange(errors_, {});
  }

  ScratchDirectory directory_;
  const int fd_ = open((directory_.path() + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  std::byte* const memory_;
  std::unique_ptr<FileIo> io_;
  Mutex mutex_;
  ConditionVariable ended_;
  std::vector<int> errors_ ABSL_GUARDED_BY(mutex_);
};

// Within what is registered, across its end and outside.
TEST_P(FileIoTest, ReadsWhatItWrote) {
  for (const auto& [from, to] : {std::pair(0, 8), {31, 40}, {40, 60}, {2, 30}}) {
    Start({.write = true, .offset = 3 * kBlock, .bytes = Block(from, 2)});
    EXPECT_EQ(Await(1), (std::vector{0}));
    Start({.offset = 3 * kBlock, .bytes = Block(to, 2)});
    EXPECT_EQ(Await(1), (std::vector{0}));
    EXPECT_EQ(std::memcmp(Block(from).data(), Block(to).data(), 2 * kBlock), 0);
  }
}

TEST_P(FileIoTest, DoesManyAtOnce) {
  for (int i = 0; i < 32; ++i) {
    Start({.write = true, .offset = i * kBlock, .bytes = Block(i)});
  }
  EXPECT_EQ(Await(32), std::vector<int>(32, 0));
  for (int i = 0; i < 32; ++i) Start({.offset = i * kBlock, .bytes = Block(32 + i)});
  EXPECT_EQ(Await(32), std::vector<int>(32, 0));
  EXPECT_EQ(std::memcmp(Block(0).data(), Block(32).data(), 32 * kBlock), 0);
}

TEST_P(FileIoTest, TheEndOfTheFileIsNoData) {
  Start({.write = true, .bytes = Block(0)});
  Await(1);
  Start({.bytes = Block(1, 2)});
  EXPECT_EQ(Await(1), (std::vector{ENODATA}));
  Start({.offset = 10 * kBlock, .bytes = Block(1)});
  EXPECT_EQ(Await(1), (std::vector{ENODATA}));
}

TEST_P(FileIoTest, AnErrorIsItsErrno) {
  const int fd = open("/dev/full", O_RDWR);
  ASSERT_GE(fd, 0);
  std::unique_ptr<FileIo> full = GetParam()({.fd = fd});
  std::swap(io_, full);
  Start({.write = true, .bytes = Block(0)});
  EXPECT_EQ(Await(1), (std::vector{ENOSPC}));
  std::swap(io_, full);
  full.reset();
  close(fd);
}

TEST_P(FileIoTest, WhatNeedNotBeginIsForgotten) {
  std::atomic<int> begun = 0;
  for (int i = 0; i < 20; ++i) {
    io_->Submit({.bytes = Block(0),
                 .begin =
                     [&] {
                       ++begun;
                       return false;
                     },
                 .done = [](int) { FAIL(); }});
  }
  Start({.write = true, .bytes = Block(1)});
  EXPECT_EQ(Await(1), (std::vector{0}));
  io_.reset();
  EXPECT_EQ(begun, 20);
}

TEST_P(FileIoTest, DestroyingOneEndsEverything) {
  std::atomic<int> done = 0;
  for (int i = 0; i < 50; ++i) {
    io_->Submit({.write = true,
                 .offset = i * kBlock,
                 .bytes = Block(i % 32),
                 .begin = [] { return true; },
                 .done = [&](int) { ++done; }});
  }
  io_.reset();
  EXPECT_EQ(done, 50);
}

INSTANTIATE_TEST_SUITE_P(Uring, FileIoTest, testing::Values(&Uring));
INSTANTIATE_TEST_SUITE_P(Threads, FileIoTest, testing::Values(&MakeThreadIo));

FileOp Op(bool write) {
  return {.write = write, .begin = [] { return true; }, .done = nullptr};
}

TEST(IoQueue, KeepsItsDepths) {
  IoQueue queue(2, 3);
  for (int i = 0; i < 5; ++i) queue.Push(Op(false));
  EXPECT_TRUE(queue.TryTake() && queue.TryTake());
  EXPECT_FALSE(queue.TryTake());
  queue.Ended(false);
  EXPECT_TRUE(queue.TryTake());
  EXPECT_FALSE(queue.TryTake());
}

TEST(IoQueue, PrefersReadsAndLetsAQuarterOfTheWritesGoOn) {
  IoQueue queue(1, 8);
  for (int i = 0; i < 10; ++i) queue.Push(Op(true));
  queue.Push(Op(false));
  EXPECT_FALSE(queue.TryTake()->write);
  int writes = 0;
  while (queue.TryTake()) ++writes;
  EXPECT_EQ(writes, 2);
  queue.Ended(false);
  while (queue.TryTake()) ++writes;
  EXPECT_EQ(writes, 8);
  EXPECT_FALSE(queue.Idle());
}

}  // namespace
}  // namespace tarn::kvstore
