#include "kvstore/directory/pieces.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace tarn::kvstore {

void PiecePool::Unmap::operator()(std::byte* region) const { munmap(region, kRegionBytes); }

bool PiecePool::AddRegion() {
  // Twice as much address space as needed: somewhere in it a huge page begins.
  void* mapped = mmap(nullptr, 2 * kRegionBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  auto* start = static_cast<std::byte*>(mapped);
  size_t skip = (kRegionBytes - reinterpret_cast<uintptr_t>(start) % kRegionBytes) % kRegionBytes;
  std::byte* region = start + skip;
  if (skip > 0) munmap(start, skip);
  munmap(region + kRegionBytes, kRegionBytes - skip);
  // Where it is refused, small pages do the same, slower.
  if (!regions_.empty()) (void)madvise(region, kRegionBytes, MADV_HUGEPAGE);
  for (size_t i = kRegionPieces; i > 0; --i) {
    fresh_.push_back(static_cast<uint32_t>(regions_.size() * kRegionPieces + i - 1));
  }
  regions_.emplace_back(region);
  return true;
}

size_t PiecePool::available() const {
  size_t used = std::min(bytes(), max_bytes_);
  return std::min((max_bytes_ - used) / kPieceBytes, kMaxPieces - taken_);
}

std::optional<uint32_t> PiecePool::Take(Content content) {
  if (available() == 0) return std::nullopt;
  std::optional<uint32_t> piece;
  if (!returned_.empty()) {
    piece = returned_.back();
    returned_.pop_back();
    if (content == Content::kZeros) std::memset(At(*piece), 0, kPieceBytes);
  } else if (!fresh_.empty() || AddRegion()) {
    piece = fresh_.back();
    fresh_.pop_back();
  }
  taken_ += piece.has_value();
  return piece;
}

void PiecePool::Give(uint32_t piece) {
  returned_.push_back(piece);
  --taken_;
}

bool PiecePool::Charge(size_t bytes) {
  if (this->bytes() + bytes > max_bytes_) return false;
  charged_ += bytes;
  return true;
}

}  // namespace tarn::kvstore
