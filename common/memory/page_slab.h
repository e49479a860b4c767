#pragma once

// Memory as a row of equal pages: index <-> offset <-> bytes.
//
// A view: owns nothing and must not outlive the memory. Thread-compatible; out of bounds is a bug
// and CHECKs.

#include <glog/logging.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace tarn {

class PageSlab {
 public:
  // `page_bytes` > 0. What is left behind the last whole page is not used.
  PageSlab(std::span<std::byte> bytes, size_t page_bytes) : bytes_(bytes), page_bytes_(page_bytes) {
    CHECK_GT(page_bytes, 0u);
  }

  size_t page_count() const { return bytes_.size() / page_bytes_; }
  size_t page_bytes() const { return page_bytes_; }

  std::span<std::byte> page(size_t index) const {
    return bytes_.subspan(OffsetOf(index), page_bytes_);
  }

  // In bytes from the start of the memory; what a ReadOp of a peer names.
  uint64_t OffsetOf(size_t index) const {
    CHECK_LT(index, page_count());
    return static_cast<uint64_t>(index) * page_bytes_;
  }

  // The page that the byte at `offset` lies in.
  size_t IndexOf(uint64_t offset) const {
    const size_t index = offset / page_bytes_;
    CHECK_LT(index, page_count());
    return index;
  }

 private:
  std::span<std::byte> bytes_;
  size_t page_bytes_;
};

}  // namespace tarn
