#pragma once

// A peer's region, mapped into this process once more by ourselves. Private to ucx/.
//
// UCX maps a neighbour's memory wherever there is room, writable, and leaves each page to fault
// when it is first read. This mapping of the same pages is aligned so that the processor can use
// huge pages where the owner has them, is read-only, and can be filled in ahead of the first read.

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"

namespace tarn {

class MappedRegion {
 public:
  // Of the shared memory that is mapped at `mapped`, rounded up to pages; null if the kernel does
  // not do that (private memory).
  static std::shared_ptr<MappedRegion> Duplicate(std::span<const std::byte> mapped);
  ~MappedRegion();
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  // Fills in the page tables from the start on, for at most `limit` (and what one call of the
  // kernel takes). Blocks; before the first Prepare.
  void Populate(absl::Duration limit);
  // The same for what holds `offset` to `offset + size`, quickly if that has been done before. One
  // thread at a time.
  void Prepare(size_t offset, size_t size);

 private:
  // Filled in by one call: as much as a huge page, so that there it is one fault.
  static constexpr size_t kUnit = size_t{2} << 20;

  explicit MappedRegion(std::span<const std::byte> bytes);
  void PopulateUnit(size_t unit);

  const std::span<const std::byte> bytes_;
  std::vector<bool> populated_;  // by unit
};

// Room of address space for `bytes` at a multiple of a huge page, held until released or mapped
// over at a fixed address. Null if there is none.
std::byte* ReserveAligned(size_t bytes);
void ReleaseReserved(std::byte* reserved, size_t bytes);

// Makes fresh shared memory, of which no page was touched, huge pages where the kernel can (Linux
// 6.1, whatever its settings). Touches one byte in 2 MiB.
void AskForHugePages(std::span<std::byte> fresh);

}  // namespace tarn
