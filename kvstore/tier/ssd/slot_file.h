#pragma once

// The file that the SSD tier's pages lie in: preallocated, so that no write of a page finds the
// disk full, and opened for direct I/O where the filesystem allows that. Private to ssd/.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace tarn::kvstore {

class SlotFile {
 public:
  // Opens or makes `path` with `bytes` bytes; blocks. What lies in it stays as far as it fits.
  // RESOURCE_EXHAUSTED: the filesystem has no room, says how much is missing. UNAVAILABLE: it
  // cannot be written.
  static absl::StatusOr<SlotFile> Open(const std::string& path, uint64_t bytes);
  SlotFile(SlotFile&& other) noexcept;
  SlotFile& operator=(SlotFile&&) = delete;
  ~SlotFile();

  int fd() const { return fd_; }
  bool direct() const { return direct_; }
  // How many bytes it had before it was made to fit.
  uint64_t bytes_found() const { return bytes_found_; }

 private:
  SlotFile(int fd, bool direct) : fd_(fd), direct_(direct) {}

  int fd_ = -1;
  bool direct_ = false;
  uint64_t bytes_found_ = 0;
};

}  // namespace tarn::kvstore
