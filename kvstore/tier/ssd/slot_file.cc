#include "kvstore/tier/ssd/slot_file.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

std::string Gib(uint64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30));
}

absl::Status ErrorOf(const std::string& path, const char* what) {
  return absl::UnavailableError(absl::StrCat(path, ": ", what, ": ", strerror(errno)));
}

// What `bytes` take more than the file has and the filesystem has free; 0 if it fits.
uint64_t Missing(int fd, uint64_t bytes) {
  struct stat file;
  struct statvfs system;
  if (fstat(fd, &file) != 0 || fstatvfs(fd, &system) != 0) return 0;
  const uint64_t have =
      static_cast<uint64_t>(file.st_blocks) * 512 + uint64_t{system.f_bavail} * system.f_frsize;
  return bytes > have ? bytes - have : 0;
}

absl::Status NoRoom(const std::string& path, uint64_t bytes, uint64_t missing) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the SSD tier wants ", Gib(bytes), " in ", path, ": ", Gib(missing),
                   " more than is free there; free that much, or lower the capacity"));
}

absl::Status Allocate(int fd, const std::string& path, uint64_t bytes) {
  if (const uint64_t missing = Missing(fd, bytes); missing > 0) return NoRoom(path, bytes, missing);
  if (fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return absl::OkStatus();
  if (errno == ENOSPC || errno == EFBIG) return NoRoom(path, bytes, Missing(fd, bytes));
  if (errno != EOPNOTSUPP) return ErrorOf(path, "fallocate");
  LOG(WARNING) << "SSD tier: " << path << " is not preallocated, its filesystem cannot: writes fail"
               << " when it is full";
  return ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? absl::OkStatus()
                                                       : ErrorOf(path, "ftruncate");
}

}  // namespace

SlotFile::SlotFile(SlotFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), direct_(other.direct_), bytes_found_(other.bytes_found_) {}

SlotFile::~SlotFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<SlotFile> SlotFile::Open(const std::string& path, uint64_t bytes) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC;
  int fd = open(path.c_str(), kFlags | O_DIRECT, 0600);
  const bool direct = fd >= 0;
  if (fd < 0 && errno == EINVAL) {
    fd = open(path.c_str(), kFlags, 0600);
    LOG(WARNING) << "SSD tier: the filesystem of " << path
                 << " refuses O_DIRECT: pages go through the page cache, each copied once more";
  }
  if (fd < 0) return ErrorOf(path, "cannot be opened for writing");
  SlotFile file(fd, direct);
  struct stat found;
  if (fstat(fd, &found) != 0) return ErrorOf(path, "fstat");
  file.bytes_found_ = static_cast<uint64_t>(found.st_size);
  if (file.bytes_found_ > bytes && ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    return ErrorOf(path, "ftruncate");
  }
  if (absl::Status status = Allocate(fd, path, bytes); !status.ok()) {
    // Part of it may have been allocated; what was there before stays.
    if (ftruncate(fd, static_cast<off_t>(std::min(bytes, file.bytes_found_))) != 0) {
      PLOG(WARNING) << "ftruncate of " << path;
    }
    return status;
  }
  return file;
}

}  // namespace tarn::kvstore
