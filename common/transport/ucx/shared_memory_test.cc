#include "common/transport/ucx/shared_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>

#include "common/base/status.h"

namespace tarn {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr SharedMemoryKinds kBoth{.sysv = true, .posix = true};
const MemoryLimits kPlenty{.available = 1024 * kMiB,
                           .sysv_segment = 1024 * kMiB,
                           .sysv_left = 1024 * kMiB,
                           .dev_shm_left = 1024 * kMiB};

TEST(SharedMemoryKinds, AreWhatUcxTlsNames) {
  const auto kinds = [](const std::string& tls) {
    const SharedMemoryKinds kinds = SharedMemoryKinds::FromTls(tls);
    return std::string(kinds.sysv ? "s" : "") + (kinds.posix ? "p" : "");
  };
  EXPECT_EQ(kinds(""), "sp");
  EXPECT_EQ(kinds("all"), "sp");
  EXPECT_EQ(kinds("^tcp"), "sp");
  EXPECT_EQ(kinds("rc,shm,self"), "sp");
  EXPECT_EQ(kinds("sysv,self"), "s");
  EXPECT_EQ(kinds("posix,self"), "p");
  EXPECT_EQ(kinds("^tcp,sysv"), "p");
  EXPECT_EQ(kinds("^shm"), "");
  EXPECT_EQ(kinds("rc"), "");
  EXPECT_EQ(kinds("tcp"), "");
}

TEST(CheckRegionFits, EitherKindIsEnough) {
  EXPECT_TRUE(CheckRegionFits(kMiB, kBoth, kPlenty).ok());
  MemoryLimits limits = kPlenty;
  limits.dev_shm_left = 0;
  EXPECT_TRUE(CheckRegionFits(kMiB, kBoth, limits).ok());
  limits = kPlenty;
  limits.sysv_segment = 0;
  EXPECT_TRUE(CheckRegionFits(kMiB, kBoth, limits).ok());
}

TEST(CheckRegionFits, AKindThatIsNotUsedDoesNotHelp) {
  MemoryLimits limits = kPlenty;
  limits.dev_shm_left = 64 * kMiB;
  EXPECT_TRUE(CheckRegionFits(64 * kMiB, {.posix = true}, limits).ok());
  const absl::Status status = CheckRegionFits(64 * kMiB + 1, {.posix = true}, limits);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(Message(status).find("/dev/shm has 67108864 bytes left"), std::string::npos) << status;
  EXPECT_EQ(Message(status).find("shmmax"), std::string::npos) << status;
}

TEST(CheckRegionFits, BothLimitsOfSystemVCount) {
  for (auto limit : {&MemoryLimits::sysv_segment, &MemoryLimits::sysv_left}) {
    MemoryLimits limits = kPlenty;
    limits.*limit = kMiB;
    EXPECT_TRUE(CheckRegionFits(kMiB, {.sysv = true}, limits).ok());
    EXPECT_EQ(CheckRegionFits(kMiB + 1, {.sysv = true}, limits).code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST(CheckRegionFits, WithoutSharedMemoryOnlyTheMachineIsTheLimit) {
  const MemoryLimits limits{.available = kMiB};
  EXPECT_TRUE(CheckRegionFits(kMiB, {}, limits).ok());
  EXPECT_EQ(CheckRegionFits(kMiB + 1, {}, limits).code(), absl::StatusCode::kResourceExhausted);
}

TEST(MemoryLimits, AreThereToRead) {
  const MemoryLimits limits = MemoryLimits::Read();
  EXPECT_GT(limits.available, 0u);
  EXPECT_GT(limits.sysv_segment + limits.dev_shm_left, 0u);
}

TEST(IsSharedMemory, TellsSharedFromPrivate) {
  for (const bool shared : {true, false}) {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                      MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
    ASSERT_NE(page, MAP_FAILED);
    EXPECT_EQ(IsSharedMemory({static_cast<std::byte*>(page), 4096}), shared);
    munmap(page, 4096);
  }
}

}  // namespace
}  // namespace tarn
