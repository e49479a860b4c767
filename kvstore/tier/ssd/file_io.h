#pragma once

// Reads and writes of one file, many at a time: the seam between the SSD tier and the system.
// Private to ssd/. Implementations: UringIo (io_uring, one thread) and ThreadIo (pread and pwrite
// on some threads, for containers that refuse io_uring).
//
// Thread-safe; does not block. Reads are preferred: while there are any, few writes are under way.
// Each direction has a depth, that is how many of its ops the system has at once; the rest waits
// here. Destroying one ends when all ops have ended; what still says yes to `begin` is done.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn::kvstore {

struct FileOp {
  bool write = false;
  uint64_t offset = 0;
  std::span<std::byte> bytes;  // a write's are not changed
  // Asked once, before the first byte moves, on a thread of the FileIo. False: the op is forgotten.
  std::function<bool()> begin;
  // 0, or the errno; ENODATA: the file ends too early. On a thread of the FileIo. Quick.
  std::function<void(int error)> done;
};

class FileIo {
 public:
  virtual ~FileIo() = default;
  virtual void Submit(FileOp op) = 0;
};

struct FileIoOptions {
  int fd = -1;  // outlives the FileIo
  int read_depth = 64;
  int write_depth = 16;
  int threads = 8;  // of ThreadIo
  // Where the bytes of ops lie, as far as known: spares the kernel the mapping of each op.
  std::vector<std::span<std::byte>> memory;
};

// UNAVAILABLE: this system has no io_uring, or refuses it.
absl::StatusOr<std::unique_ptr<FileIo>> MakeUringIo(const FileIoOptions& options);
std::unique_ptr<FileIo> MakeThreadIo(const FileIoOptions& options);

}  // namespace tarn::kvstore
