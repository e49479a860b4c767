#include "common/transport/ucx/mapped_region.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "common/runtime/real/real_event_loop.h"

namespace tarn {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHuge = size_t{2} << 20;

// Newer than Debian 12's C library; a kernel that does not know them refuses.
constexpr int kPopulateRead = 22;
constexpr int kCollapse = 25;

}  // namespace

std::byte* ReserveAligned(size_t bytes) {
  const size_t room = bytes + kHuge;
  void* start = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(start);
  const size_t head = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + bytes, room - head - bytes);
  return begin + head;
}

void ReleaseReserved(std::byte* reserved, size_t bytes) { munmap(reserved, bytes); }

void AskForHugePages(std::span<std::byte> fresh) {
  madvise(fresh.data(), fresh.size(), MADV_HUGEPAGE);
  // A huge page is made of what is there, so something must be; the rest comes zeroed.
  for (size_t at = 0; at + kHuge <= fresh.size(); at += kHuge) {
    static_cast<volatile std::byte&>(fresh[at]) = std::byte{0};
  }
  madvise(fresh.data(), fresh.size() / kHuge * kHuge, kCollapse);
}

MappedRegion::MappedRegion(std::span<const std::byte> bytes)
    : bytes_(bytes), populated_((bytes.size() + kUnit - 1) / kUnit) {}

MappedRegion::~MappedRegion() { munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

std::shared_ptr<MappedRegion> MappedRegion::Duplicate(std::span<const std::byte> mapped) {
  const size_t size = (mapped.size() + kPage - 1) / kPage * kPage;
  std::byte* const room = ReserveAligned(size);
  if (room == nullptr) return nullptr;
  // An old size of 0 maps the same pages again and leaves the old mapping (mremap(2)). By system
  // call, for UCX puts itself before the library's mremap and loses the new address.
  const long copy =
      syscall(SYS_mremap, mapped.data(), size_t{0}, size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
  if (copy == -1) {
    ReleaseReserved(room, size);
    return nullptr;
  }
  CHECK_EQ(copy, reinterpret_cast<intptr_t>(room));
  mprotect(room, size, PROT_READ);
  return std::shared_ptr<MappedRegion>(new MappedRegion({room, size}));
}

void MappedRegion::PopulateUnit(size_t unit) {
  populated_[unit] = true;
  const size_t begin = unit * kUnit;
  const size_t size = std::min(kUnit, bytes_.size() - begin);
  madvise(const_cast<std::byte*>(bytes_.data()) + begin, size, kPopulateRead);
}

void MappedRegion::Populate(absl::Duration limit) {
  const absl::Time end = SteadyNow() + limit;
  for (size_t unit = 0; unit < populated_.size() && SteadyNow() < end; ++unit) PopulateUnit(unit);
}

void MappedRegion::Prepare(size_t offset, size_t size) {
  if (size == 0) return;
  for (size_t unit = offset / kUnit; unit <= (offset + size - 1) / kUnit; ++unit) {
    if (!populated_[unit]) PopulateUnit(unit);
  }
}

}  // namespace tarn
