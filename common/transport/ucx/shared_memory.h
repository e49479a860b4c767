#pragma once

// Whether a region can be had as shared memory, asked before UCX tries. Private to ucx/.
//
// What UCX cannot allocate as shared memory it takes from private memory without a word, and then
// peers cannot read it without the owner's CPU. Containers often have 64 MiB of /dev/shm.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace tarn {

// Which kinds a value of UCX_TLS lets UCX use; none of them with "rc" or "tcp" alone.
struct SharedMemoryKinds {
  bool sysv = false;
  bool posix = false;

  static SharedMemoryKinds FromTls(const std::string& tls);
  bool any() const { return sysv || posix; }
};

// In bytes; for this process, as of now.
struct MemoryLimits {
  uint64_t available = 0;     // MemAvailable
  uint64_t sysv_segment = 0;  // kernel.shmmax
  uint64_t sysv_left = 0;     // kernel.shmall, less what is in use
  uint64_t dev_shm_left = 0;

  static MemoryLimits Read();
};

// RESOURCE_EXHAUSTED: which limits are in the way, and what to raise.
absl::Status CheckRegionFits(uint64_t bytes, const SharedMemoryKinds& kinds,
                             const MemoryLimits& limits);

// The limits in words, and what to raise.
std::string DescribeSharedMemory(const SharedMemoryKinds& kinds, const MemoryLimits& limits);

// Whether these fresh pages, still zero, are shared memory.
bool IsSharedMemory(std::span<std::byte> page);

}  // namespace tarn
