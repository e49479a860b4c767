#pragma once

// Which process owns a mapped region, and whether it still runs. Private to ucx/.
//
// Shared memory outlives its owner for as long as somebody maps it, so its bytes do not tell.

#include <cstdint>

namespace tarn {

struct OwnerProcess {
  uint64_t pid_namespace = 0;  // 0: not known
  uint64_t pid = 0;
  uint64_t start_time = 0;  // in clock ticks after boot: pids are used again

  static OwnerProcess Self();

  // False while it runs or is stopped, and where this process cannot tell, which is in another
  // namespace of pids. Reads a file of /proc.
  bool Gone() const;
};

}  // namespace tarn
