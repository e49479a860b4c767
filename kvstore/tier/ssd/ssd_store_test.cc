#include "kvstore/tier/ssd/ssd_store.h"

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>

#include "common/runtime/post_and_wait.h"
#include "kvstore/tier/conformance.h"
#include "kvstore/tier/persistent_conformance.h"
#include "kvstore/tier/ssd/ssd_harness.h"

namespace tarn::kvstore {
namespace {

using Io = SsdStoreOptions::Io;

template <typename Harness, Io io>
std::unique_ptr<Harness> MakeHarness() {
  return std::make_unique<SsdHarness>(io);
}

INSTANTIATE_TEST_SUITE_P(Uring, BlockStoreConformance,
                         testing::Values(&MakeHarness<BlockStoreHarness, Io::kUring>));
INSTANTIATE_TEST_SUITE_P(Threads, BlockStoreConformance,
                         testing::Values(&MakeHarness<BlockStoreHarness, Io::kThreads>));
INSTANTIATE_TEST_SUITE_P(Uring, PersistentBlockStoreConformance,
                         testing::Values(&MakeHarness<PersistentBlockStoreHarness, Io::kUring>));
INSTANTIATE_TEST_SUITE_P(Threads, PersistentBlockStoreConformance,
                         testing::Values(&MakeHarness<PersistentBlockStoreHarness, Io::kThreads>));

// Faults of disk, file and index.
class SsdStoreTest : public testing::Test, protected BlockStoreCaller {
 protected:
  SsdStoreTest() : BlockStoreCaller(std::make_unique<SsdHarness>(Io::kAuto)) {}
  SsdHarness& harness() { return static_cast<SsdHarness&>(*harness_); }

  // The store in its next life, and how many blocks it has told of.
  int Reopen(const std::function<void()>& between = [] {}) {
    Destroy();
    between();
    std::unique_ptr<PersistentBlockStore> store = harness().MakeUnrecovered({});
    Outcome done = std::make_shared<StoreOutcome>();
    int told = 0;
    OnLoop([&] {
      store->Recover([&](const auto& blocks, double) { told += static_cast<int>(blocks.size()); },
                     Note(done));
    });
    Await({done});
    EXPECT_TRUE(done->status.ok()) << done->status;
    store_ = std::move(store);
    return told;
  }
  void FillSlots() {
    for (int slot = 0; slot < 8; ++slot) ASSERT_TRUE(Write(slot, slot).ok());
  }
  // The only file below the index whose name has this.
  std::string IndexFile(const std::string& part) {
    std::string found;
    for (const auto& entry : std::filesystem::directory_iterator(harness().path() + "/index")) {
      if (entry.path().filename().string().find(part) != std::string::npos) found = entry.path();
    }
    EXPECT_NE(found, "") << part;
    return found;
  }
  absl::Status OpenWith(const std::function<void(SsdStoreOptions&)>& change) {
    SsdStoreOptions options = harness().Options({});
    change(options);
    return SsdStore::Open(options, &driver().loop()).status();
  }
  static void ExpectSays(const absl::Status& status, absl::StatusCode code,
                         const std::vector<std::string>& parts) {
    EXPECT_EQ(status.code(), code) << status;
    for (const std::string& part : parts) {
      EXPECT_NE(Message(status).find(part), std::string::npos) << status;
    }
  }
};

TEST_F(SsdStoreTest, ADiskThatGivesErrorsIsUnavailableAndComesBack) {
  Make();
  FillSlots();
  harness().faults().SetPlan([](FileOp&) { return EIO; });
  EXPECT_EQ(Read(0, 0).code(), kUnavailable);
  EXPECT_EQ(Write(1, 11).code(), kUnavailable);
  harness().faults().SetPlan(nullptr);
  ExpectHolds(0, 0);
  ExpectHoldsNot(1, 1);
  ExpectHoldsNot(1, 11);
  const BlockStoreStats stats = Stats();
  EXPECT_EQ(stats.read_errors, 1u);
  EXPECT_EQ(stats.write_errors, 1u);
  EXPECT_EQ(Reopen(), 7);
}

TEST_F(SsdStoreTest, ADiskThatIsReadOnlyStillServes) {
  Make();
  FillSlots();
  harness().faults().SetPlan(
      [](FileOp& op) { return op.write ? std::optional<int>(EROFS) : std::nullopt; });
  EXPECT_EQ(Write(1, 11).code(), kUnavailable);
  ExpectHolds(2, 2);
}

TEST_F(SsdStoreTest, AFullDiskIsResourceExhausted) {
  Make();
  harness().faults().SetPlan([](FileOp&) { return ENOSPC; });
  EXPECT_EQ(Write(1, 1).code(), kResourceExhausted);
  harness().faults().SetPlan(nullptr);
  ExpectHoldsNot(1, 1);
  EXPECT_TRUE(Write(1, 1).ok());
}

TEST_F(SsdStoreTest, ATornWriteIsSeenWhenItIsRead) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  harness().faults().SetPlan([](FileOp& op) -> std::optional<int> {
    if (op.write) op.bytes = op.bytes.first(4096);
    return std::nullopt;
  });
  EXPECT_TRUE(Write(0, 2).ok());
  harness().faults().SetPlan(nullptr);
  EXPECT_EQ(Reopen(), 1);
  EXPECT_EQ(Read(0, 2).code(), kDataLoss);
  EXPECT_EQ(Stats().verify_failures, 1u);
  EXPECT_EQ(Reopen(), 0);
}

// As a kill leaves it: the record of the old block, the bytes of the new one.
TEST_F(SsdStoreTest, ABlockThatWasOverwrittenBehindTheIndexIsSeen) {
  Make();
  ASSERT_TRUE(Write(0, 1).ok());
  SealTestBlock(layout(), 2, Page(2));
  Destroy();
  const int fd = open(harness().slots_path().c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, Page(2).data(), layout().page_bytes(), 0),
            static_cast<ssize_t>(layout().page_bytes()));
  fsync(fd);
  close(fd);
  EXPECT_EQ(Reopen(), 1);
  EXPECT_EQ(Read(0, 1).code(), kDataLoss);
}

TEST_F(SsdStoreTest, APageThatIsReusedWhileTheDiskReadsItIsAborted) {
  Make();
  harness().faults().SetPlan([this](FileOp& op) -> std::optional<int> {
    if (!op.write) return std::nullopt;
    op.done = [this, done = op.done](int error) {
      OnLoop([&] { InvalidateBlock(Page(0)); });
      done(error);
    };
    return std::nullopt;
  });
  EXPECT_EQ(Write(0, 1, 0).code(), kAborted);
  harness().faults().SetPlan(nullptr);
  ExpectHoldsNot(0, 1);
  EXPECT_EQ(Reopen(), 0);
}

TEST_F(SsdStoreTest, BlocksBehindTheEndOfATruncatedFileAreDropped) {
  Make();
  FillSlots();
  const auto truncate = [&] {
    std::filesystem::resize_file(harness().slots_path(), layout().page_bytes() * 5 / 2);
  };
  EXPECT_EQ(Reopen(truncate), 2);
  EXPECT_EQ(Stats().records_dropped, 6u);
  ExpectHolds(1, 1);
  ExpectHoldsNot(2, 2);
  EXPECT_TRUE(Write(7, 7).ok());
  EXPECT_EQ(Reopen(), 3);
  EXPECT_EQ(Reopen([&] { std::filesystem::remove(harness().slots_path()); }), 0);
}

TEST_F(SsdStoreTest, AFileThatIsTruncatedUnderAStoreIsSeen) {
  Make();
  FillSlots();
  std::filesystem::resize_file(harness().slots_path(), layout().page_bytes() * 5 / 2);
  ExpectHolds(1, 1);
  EXPECT_EQ(Read(2, 2).code(), kDataLoss);
  EXPECT_EQ(Read(7, 7).code(), kDataLoss);
  EXPECT_TRUE(Write(7, 8).ok());
  ExpectHolds(7, 8);
}

TEST_F(SsdStoreTest, ADirectoryOfAnotherModelOrLayoutIsRefused) {
  Make();
  Destroy();
  const absl::StatusCode refused = absl::StatusCode::kFailedPrecondition;
  const std::string advice = "use another directory, or remove this one";
  ExpectSays(OpenWith([](auto& options) { options.model_fingerprint = 78; }), refused,
             {"another model", harness().path(), advice});
  ExpectSays(OpenWith([](auto& options) {
               options.layout.layers = 2;
               options.capacity_bytes *= 4;
             }),
             refused, {"another layout", "1 layers", "2 layers", advice});
  EXPECT_TRUE(OpenWith([](auto&) {}).ok());
}

TEST_F(SsdStoreTest, ADirectoryInUseIsRefused) {
  Make();
  ExpectSays(OpenWith([](auto&) {}), absl::StatusCode::kFailedPrecondition,
             {"in use by another process", harness().path()});
}

TEST_F(SsdStoreTest, WhatDoesNotFitSaysHowMuchIsMissing) {
  ExpectSays(OpenWith([](auto& options) { options.capacity_bytes = uint64_t{1} << 43; }),
             absl::StatusCode::kResourceExhausted, {"8192.00 GiB", "more than is free"});
  EXPECT_EQ(std::filesystem::file_size(harness().slots_path()), 0u);
  Make();
  FillSlots();
}

TEST_F(SsdStoreTest, ADirectoryThatCannotBeWrittenIsRefused) {
  ExpectSays(OpenWith([](auto& options) { options.directory = "/proc/tarn"; }),
             absl::StatusCode::kUnavailable, {"/proc/tarn"});
  const std::string file = harness().path() + "/file";
  std::ofstream(file) << "x";
  ExpectSays(OpenWith([&](auto& options) { options.directory = file; }),
             absl::StatusCode::kUnavailable, {file});
  // There, and read-only whoever asks.
  ExpectSays(OpenWith([](auto& options) { options.directory = "/proc/self"; }),
             absl::StatusCode::kUnavailable, {"/proc/self"});
}

TEST_F(SsdStoreTest, OptionsAreChecked) {
  const absl::StatusCode invalid = absl::StatusCode::kInvalidArgument;
  ExpectSays(OpenWith([](auto& o) { o.capacity_bytes = 100; }), invalid, {"capacity_bytes"});
  ExpectSays(OpenWith([](auto& o) { o.layout.layers = 0; }), invalid, {"layers"});
  ExpectSays(OpenWith([](auto& o) { o.read_depth = 0; }), invalid, {"read_depth"});
}

TEST_F(SsdStoreTest, AnIndexThatCannotBeOpenedIsDropped) {
  for (const std::string part : {"CURRENT", "MANIFEST"}) {
    Make();
    FillSlots();
    EXPECT_EQ(Reopen([&] { std::ofstream(IndexFile(part), std::ios::trunc) << "no such thing"; }),
              0)
        << part;
    EXPECT_EQ(Stats().indexes_dropped, 1u);
    ASSERT_TRUE(Write(3, 3).ok());
    EXPECT_EQ(Reopen(), 1);
    EXPECT_EQ(Stats().indexes_dropped, 0u);
    ExpectHolds(3, 3);
    OnLoop([&] { Erase(3); });
    Destroy();
  }
}

TEST_F(SsdStoreTest, AnIndexWithDamagedRecordsIsDroppedAndWhatWasToldServes) {
  Make();
  FillSlots();
  EXPECT_EQ(Reopen(), 8);  // by now the records have moved from the log to a table
  EXPECT_EQ(Reopen([&] { FlipBit(IndexFile(".sst"), 100); }), 0);
  EXPECT_EQ(Stats().indexes_dropped, 1u);
  ASSERT_TRUE(Write(3, 3).ok());
  EXPECT_EQ(Reopen(), 1);
}

TEST_F(SsdStoreTest, ALogOfTheIndexThatIsCutShortLosesItsEnd) {
  Make();
  for (int slot = 0; slot < 4; ++slot) ASSERT_TRUE(Write(slot, slot).ok());
  EXPECT_EQ(Reopen(), 4);
  ASSERT_TRUE(Write(4, 4).ok());
  const int told = Reopen([&] {
    const std::string log = IndexFile(".log");
    std::filesystem::resize_file(log, std::filesystem::file_size(log) - 30);
  });
  EXPECT_EQ(told, 4);
  EXPECT_EQ(Stats().indexes_dropped, 0u);
  for (int slot = 0; slot < 4; ++slot) ExpectHolds(slot, slot);
}

// A filesystem that is full, or gone, for the index' log.
class FailingFiles : public rocksdb::FileSystemWrapper {
 public:
  FailingFiles() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FailingFiles"; }
  std::atomic<bool> failing = false;

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    if (failing) return rocksdb::IOStatus::NoSpace("injected");
    std::unique_ptr<rocksdb::FSWritableFile> base;
    const rocksdb::IOStatus status = target()->NewWritableFile(name, options, &base, debug);
    if (status.ok()) *file = std::make_unique<File>(std::move(base), failing);
    return status;
  }

 private:
  class File : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSWritableFile> base, const std::atomic<bool>& failing)
        : FSWritableFileOwnerWrapper(std::move(base)), failing_(failing) {}
    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      if (failing_) return rocksdb::IOStatus::NoSpace("injected");
      return FSWritableFileOwnerWrapper::Append(data, options, debug);
    }

   private:
    const std::atomic<bool>& failing_;
  };
};

TEST_F(SsdStoreTest, AnIndexThatFindsNoRoomServesOnAndIsWrittenLater) {
  const auto files = std::make_shared<FailingFiles>();
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(files);
  harness().env = env.get();
  Make();
  ASSERT_TRUE(Write(0, 0).ok());
  EXPECT_EQ(Reopen(), 1);
  files->failing = true;
  ASSERT_TRUE(Write(1, 1).ok());
  while (Stats().index_errors == 0) driver().Pass(absl::Milliseconds(5));
  ExpectHolds(1, 1);
  ASSERT_TRUE(Write(2, 2).ok());
  files->failing = false;
  EXPECT_EQ(Reopen(), 3);
  ExpectHolds(1, 1);
  ExpectHolds(2, 2);
  Destroy();
  harness().env = nullptr;
}

TEST_F(SsdStoreTest, ManyWritesCostLittleMoreThanTheirPages) {
  Make();
  for (int round = 0; round < 4; ++round) FillSlots();
  const BlockStoreStats stats = Stats();
  EXPECT_EQ(stats.writes, 32u);
  EXPECT_GE(stats.device_written_bytes, stats.written_bytes);
}

// Not with the harness' loop: the store's loop goes before the disk answers.
TEST(SsdStoreHangTest, TheEndDoesNotWaitForADiskThatHangs) {
  constexpr auto kLimit = std::chrono::seconds(60);
  const ScratchDirectory directory;
  auto loop = std::make_unique<RealEventLoop>("hung");
  auto disk = std::make_shared<HungDisk>();
  std::promise<void> freed;
  std::atomic<bool> is_freed = false;
  std::shared_ptr<PlainPages> pages(new PlainPages, [&](PlainPages* gone) {
    delete gone;
    is_freed = true;
    freed.set_value();
  });
  const BlockLayout& layout = BlockStoreHarness::layout();
  SsdStoreOptions options{.directory = directory.path(),
                          .capacity_bytes = layout.page_bytes() * 8,
                          .layout = layout,
                          .close_timeout = absl::Milliseconds(50)};
  options.wrap_io = [&](const std::unique_ptr<FileIo>&) { return std::make_unique<HungIo>(disk); };
  auto store = SsdStore::Open(options, loop.get());
  ASSERT_TRUE(store.ok()) << store.status();
  (*store)->Retain(pages);
  const std::span<std::byte> page = pages->bytes().first(layout.page_bytes());
  SealTestBlock(layout, 1, page, 1, 16);
  std::atomic<bool> done = false;
  RunOnLoop(*loop, [&] {
    (*store)->Write(3, TestRecord(1), page, [&](const absl::Status&) { done = true; });
  });
  EXPECT_EQ(disk->begun(), 1u);
  pages.reset();
  RunOnLoop(*loop, [&] { store->reset(); });  // returns, though the disk has not answered
  EXPECT_FALSE(is_freed) << "the kernel could still read and write there";
  loop.reset();
  disk->Release();
  ASSERT_EQ(freed.get_future().wait_for(kLimit), std::future_status::ready) << "now it has";
  EXPECT_FALSE(done) << "its loop has gone";
}

}  // namespace
}  // namespace tarn::kvstore
