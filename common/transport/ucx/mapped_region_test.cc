#include "common/transport/ucx/mapped_region.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "common/runtime/random.h"

namespace tarn {
namespace {

constexpr size_t kBytes = (size_t{5} << 20) + 4096;

// A System V segment, as UCX makes them.
class Segment {
 public:
  Segment() {
    room_ = ReserveAligned(kBytes);
    const int id = shmget(IPC_PRIVATE, kBytes, 0600 | IPC_CREAT);
    pages_ = static_cast<std::byte*>(shmat(id, room_, SHM_REMAP));
    shmctl(id, IPC_RMID, nullptr);
  }
  ~Segment() { shmdt(pages_); }

  std::span<std::byte> bytes() { return {pages_, kBytes}; }
  bool aligned() const { return pages_ == room_; }

 private:
  std::byte* room_;
  std::byte* pages_;
};

TEST(MappedRegion, ShowsTheSamePagesElsewhereAndAfterTheFirstMappingHasGone) {
  std::optional<Segment> segment(std::in_place);
  Random(1).Fill(segment->bytes());
  const auto mapped = MappedRegion::Duplicate(segment->bytes().first(kBytes - 100));
  ASSERT_NE(mapped, nullptr);
  EXPECT_EQ(mapped->bytes().size(), kBytes);
  EXPECT_NE(mapped->bytes().data(), segment->bytes().data());
  EXPECT_EQ(std::memcmp(mapped->bytes().data(), segment->bytes().data(), kBytes), 0);
  segment->bytes()[kBytes - 1] = std::byte{77};
  EXPECT_EQ(mapped->bytes()[kBytes - 1], std::byte{77});
  segment.reset();
  EXPECT_EQ(mapped->bytes()[kBytes - 1], std::byte{77});
}

TEST(MappedRegion, CannotBeWritten) {
  Segment segment;
  const auto mapped = MappedRegion::Duplicate(segment.bytes());
  ASSERT_NE(mapped, nullptr);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  ASSERT_EQ(write(fds[1], "x", 1), 1);
  EXPECT_EQ(read(fds[0], const_cast<std::byte*>(mapped->bytes().data()), 1), -1);
  EXPECT_EQ(errno, EFAULT);
  close(fds[0]);
  close(fds[1]);
}

TEST(MappedRegion, PreparesWhatPopulateHasLeft) {
  Segment segment;
  Random(2).Fill(segment.bytes());
  const auto mapped = MappedRegion::Duplicate(segment.bytes());
  ASSERT_NE(mapped, nullptr);
  mapped->Populate(absl::ZeroDuration());
  mapped->Prepare(kBytes - 1, 1);
  mapped->Prepare(0, kBytes);
  mapped->Prepare(7, 0);
  std::vector<unsigned char> resident((kBytes + 4095) / 4096);
  ASSERT_EQ(mincore(const_cast<std::byte*>(mapped->bytes().data()), kBytes, resident.data()), 0);
  for (const unsigned char page : resident) EXPECT_EQ(page & 1, 1);
}

TEST(MappedRegion, RefusesPrivateMemory) {
  void* pages = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  EXPECT_EQ(MappedRegion::Duplicate({static_cast<std::byte*>(pages), kBytes}), nullptr);
  munmap(pages, kBytes);
}

TEST(HugePages, AskingLeavesZeroedMemoryAtAnAlignedAddress) {
  Segment segment;
  EXPECT_TRUE(segment.aligned());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(segment.bytes().data()) % (size_t{2} << 20), 0u);
  AskForHugePages(segment.bytes());
  for (const std::byte byte : segment.bytes()) ASSERT_EQ(byte, std::byte{0});
}

TEST(HugePages, ThereIsNoRoomForMoreThanAddressesGo) {
  EXPECT_EQ(ReserveAligned(size_t{1} << 62), nullptr);
}

}  // namespace
}  // namespace tarn
