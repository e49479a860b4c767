// Processes that are killed while they write, and what the next one finds.
//
// The test starts itself again with an argument: that process is the one that is killed.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <string>

#include "common/base/thread_sanitizer.h"
#include "kvstore/tier/conformance_harness.h"
#include "kvstore/tier/ssd/scratch_directory.h"
#include "kvstore/tier/ssd/ssd_store.h"

namespace tarn::kvstore {
namespace {

constexpr int kSlots = 64;
constexpr int kInFlight = 8;
constexpr uint32_t kNumbers = 1000;

const BlockLayout& Layout() { return BlockStoreHarness::layout(); }

SsdStoreOptions OptionsFor(const std::string& directory) {
  return {
      .directory = directory, .capacity_bytes = Layout().page_bytes() * kSlots, .layout = Layout()};
}

std::unique_ptr<SsdStore> OpenAndRecover(
    const std::string& directory, LoopDriver& driver,
    std::vector<PersistentBlockStore::Recovered>* told = nullptr) {
  absl::StatusOr<std::unique_ptr<SsdStore>> store =
      SsdStore::Open(OptionsFor(directory), &driver.loop());
  CHECK(store.ok()) << store.status();
  bool done = false;
  driver.OnLoop([&] {
    (*store)->Recover(
        [&](auto blocks, double) {
          if (told != nullptr) told->insert(told->end(), blocks.begin(), blocks.end());
        },
        [&](const absl::Status& status) {
          CHECK(status.ok()) << status;
          done = true;
          driver.Changed();
        });
  });
  CHECK(driver.RunUntil([&] { return done; }));
  return *std::move(store);
}

// The process that is killed: writes until then, a byte to stdout for each write that is done.
class EndlessWriter {
 public:
  EndlessWriter(const std::string& directory, uint64_t seed)
      : random_(seed), store_(OpenAndRecover(directory, driver_)) {}

  [[noreturn]] void Run() {
    driver_.OnLoop([this] {
      for (int page = 0; page < kInFlight; ++page) WriteNext(page);
    });
    while (true) pause();
  }

 private:
  void WriteNext(int page) {
    const auto number = static_cast<uint32_t>(random_.UniformInt(kNumbers));
    const auto slot = static_cast<int32_t>(random_.UniformInt(kSlots));
    const std::span<std::byte> bytes =
        pages_.bytes().subspan(page * Layout().page_bytes(), Layout().page_bytes());
    SealTestBlock(Layout(), number, bytes);
    store_->Write(slot, TestRecord(number), bytes, [this, page](const absl::Status& status) {
      CHECK(status.ok()) << status;
      CHECK_EQ(write(STDOUT_FILENO, "w", 1), 1);
      WriteNext(page);
    });
  }

  RealLoopDriver driver_;
  PlainPages pages_;
  Random random_;
  std::unique_ptr<SsdStore> store_;
};

// Refuses io_uring to this process, as the seccomp profiles of container runtimes do.
void RefuseUring() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), program};
  PCHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  PCHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

int RunChild(const std::string& mode, const std::string& directory, uint64_t seed) {
  if (mode == "--write") EndlessWriter(directory, seed).Run();
  RefuseUring();
  RealLoopDriver driver;
  const std::unique_ptr<SsdStore> store = OpenAndRecover(directory, driver);
  const std::string name = store->io_name();
  return write(STDOUT_FILENO, name.data(), name.size()) > 0 ? 0 : 1;
}

class Child {
 public:
  Child(const std::string& mode, const std::string& directory, uint64_t seed) {
    int ends[2];
    PCHECK(pipe(ends) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::vector<std::string> words{"ssd_crash_test", mode, directory, std::to_string(seed)};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    CHECK_EQ(posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = ends[0];
  }
  ~Child() {
    if (pid_ > 0) Kill();
    close(output_);
  }

  // Waits for so much output; empty: it has ended.
  std::string Output(size_t bytes) {
    std::string all(bytes, '\0');
    size_t have = 0;
    while (have < bytes) {
      const ssize_t n = read(output_, all.data() + have, bytes - have);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      have += static_cast<size_t>(n);
    }
    return all.substr(0, have);
  }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }
  int Wait() {
    int status = 0;
    PCHECK(waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

class SsdCrashTest : public testing::Test {
 protected:
  SsdCrashTest() {
    for (uint32_t number = 0; number < kNumbers; ++number) numbers_[TestKey(number)] = number;
  }

  // Reads a block that the store has told of: whole, or DATA_LOSS.
  bool ReadOne(SsdStore& store, RealLoopDriver& driver,
               const PersistentBlockStore::Recovered& block) {
    const std::span<std::byte> page = pages_.bytes().first(Layout().page_bytes());
    std::optional<absl::Status> end;
    driver.OnLoop([&] {
      store.Read(block.slot, block.record.key, page, absl::InfiniteFuture(),
                 [&](absl::Status status) {
                   end = std::move(status);
                   driver.Changed();
                 });
    });
    EXPECT_TRUE(driver.RunUntil([&] { return end.has_value(); }));
    if (!end->ok()) {
      EXPECT_EQ(end->code(), absl::StatusCode::kDataLoss) << *end;
      return false;
    }
    std::vector<std::byte> expected(Layout().payload_bytes());
    Random(numbers_.at(block.record.key)).Fill(expected);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                           page.begin() + static_cast<ptrdiff_t>(Layout().payload_offset())));
    return true;
  }

  ScratchDirectory scratch_;
  const std::string directory_ = scratch_.path() + "/tier";
  PlainPages pages_;
  std::map<BlockKey, uint32_t> numbers_;
};

TEST_F(SsdCrashTest, WhatAKilledProcessWroteVerifiesOrIsDropped) {
  constexpr int kRounds = kThreadSanitizer ? 4 : 25;
  Random random(1);
  int whole = 0;
  int lost = 0;
  for (int round = 0; round < kRounds; ++round) {
    Child child("--write", directory_, round + 1);
    const size_t writes = random.UniformInt(1, 300);
    ASSERT_EQ(child.Output(writes).size(), writes);
    child.Kill();
    RealLoopDriver driver;
    std::vector<PersistentBlockStore::Recovered> told;
    std::unique_ptr<SsdStore> store = OpenAndRecover(directory_, driver, &told);
    for (const auto& block : told) ++(ReadOne(*store, driver, block) ? whole : lost);
    driver.OnLoop([&] { store.reset(); });
  }
  LOG(INFO) << kRounds << " kills: " << whole << " blocks whole, " << lost << " dropped";
  // Dropped is what was under way, and what the index had not been told of yet.
  EXPECT_GT(whole, kRounds * kSlots / 4);
}

TEST_F(SsdCrashTest, TwoProcessesDoNotShareADirectory) {
  Child child("--write", directory_, 1);
  ASSERT_EQ(child.Output(1).size(), 1u);
  RealLoopDriver driver;
  const absl::Status status = SsdStore::Open(OptionsFor(directory_), &driver.loop()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_NE(Message(status).find("in use by another process"), std::string::npos) << status;
}

TEST_F(SsdCrashTest, WhereIoUringIsRefusedThreadsDoIt) {
  Child child("--refused", directory_, 0);
  EXPECT_EQ(child.Output(100).substr(0, 7), "threads");
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace tarn::kvstore

int main(int argc, char** argv) {
  if (argc == 4) return tarn::kvstore::RunChild(argv[1], argv[2], std::stoull(argv[3]));
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
