#pragma once

// The memory that a TcpTransport lets peers read, and may write itself. Private to tcp/.
// Thread-safe.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "common/base/mutex.h"

namespace tarn {

class TcpRegions {
 public:
  // Looks up a region's bytes; empty if it is gone or never was.
  using Lookup = std::function<std::optional<std::span<const std::byte>>(uint64_t index)>;

  // Indices count from 0 and are not used again.
  uint64_t Add(std::span<std::byte> bytes);
  // Waits for a Send that runs. Then nobody reads the bytes any more.
  void Remove(uint64_t index);
  // For good, as if each region was removed.
  void Close();

  // Runs `send`, during which no region goes away. Short: others wait.
  void Send(const std::function<void(const Lookup&)>& send);

  // Whether the bytes lie in a region.
  bool IsLocal(std::span<const std::byte> bytes);

 private:
  // Of those who send and those who remove; not of IsLocal, which must not wait for a send.
  Mutex send_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  Mutex mutex_;
  std::vector<std::optional<std::span<std::byte>>> regions_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tarn
