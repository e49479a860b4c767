#include "common/transport/ucx/shared_memory.h"

#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tarn {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

uint64_t SaturatedProduct(uint64_t a, uint64_t b) {
  return b != 0 && a > kUnlimited / b ? kUnlimited : a * b;
}

uint64_t ReadMemAvailable() {
  std::ifstream meminfo("/proc/meminfo");
  std::string field;
  uint64_t kilobytes = 0;
  std::string unit;
  while (meminfo >> field >> kilobytes && std::getline(meminfo, unit)) {
    if (field == "MemAvailable:") return kilobytes * 1024;
  }
  return kUnlimited;
}

void ReadSysv(MemoryLimits& limits) {
  shminfo info{};
  shm_info usage{};
  // One system call for several structures; the library's prototype knows only the first.
  if (shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&info)) < 0) return;
  if (shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&usage)) < 0) return;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  limits.sysv_segment = info.shmmax;
  limits.sysv_left =
      SaturatedProduct(info.shmall - std::min<uint64_t>(info.shmall, usage.shm_tot), page);
}

}  // namespace

SharedMemoryKinds SharedMemoryKinds::FromTls(const std::string& tls) {
  if (tls.empty()) return {true, true};
  const bool excludes = tls[0] == '^';
  const std::set<std::string> names = absl::StrSplit(tls.substr(excludes ? 1 : 0), ',');
  const auto allowed = [&](const char* kind) {
    bool named = false;
    for (const char* name : {kind, "mm", "sm", "shm", "all"}) named |= names.contains(name);
    return named != excludes;
  };
  return {allowed("sysv"), allowed("posix")};
}

MemoryLimits MemoryLimits::Read() {
  MemoryLimits limits{.available = ReadMemAvailable()};
  ReadSysv(limits);
  struct statvfs dev_shm {};
  if (statvfs("/dev/shm", &dev_shm) == 0) {
    // A file system without a limit of its own reports no blocks at all.
    limits.dev_shm_left =
        dev_shm.f_blocks == 0 ? kUnlimited : SaturatedProduct(dev_shm.f_bavail, dev_shm.f_frsize);
  }
  return limits;
}

absl::Status CheckRegionFits(uint64_t bytes, const SharedMemoryKinds& kinds,
                             const MemoryLimits& limits) {
  // UCX falls back to a file in /dev/shm when the kernel refuses a segment, and fills it until the
  // machine is out of memory; so what cannot fit must not reach it.
  if (bytes > limits.available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a region of ", bytes, " bytes: the machine has ", limits.available, " bytes available"));
  }
  const bool sysv = kinds.sysv && bytes <= limits.sysv_segment && bytes <= limits.sysv_left;
  const bool posix = kinds.posix && bytes <= limits.dev_shm_left;
  if (sysv || posix || !kinds.any()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("a region of ", bytes,
                   " bytes does not fit shared memory: ", DescribeSharedMemory(kinds, limits)));
}

std::string DescribeSharedMemory(const SharedMemoryKinds& kinds, const MemoryLimits& limits) {
  std::string text;
  if (kinds.sysv) {
    absl::StrAppend(&text, "a System V segment may have ", limits.sysv_segment,
                    " bytes (kernel.shmmax) and ", limits.sysv_left,
                    " bytes are left for all (kernel.shmall); ");
  }
  if (kinds.posix) absl::StrAppend(&text, "/dev/shm has ", limits.dev_shm_left, " bytes left; ");
  return absl::StrCat(text, "raise one of them (in a container, the size of /dev/shm)");
}

bool IsSharedMemory(std::span<std::byte> page) {
  // Punches a hole, which private memory refuses.
  return madvise(page.data(), page.size(), MADV_REMOVE) == 0;
}

}  // namespace tarn
