#pragma once

// Memory for an index in equal pieces, with a hard limit in bytes.
//
// Pieces come from regions of 2 MiB, huge pages where the system gives them: a random read in a
// table of some hundred megabytes then costs two thirds. The first region keeps small pages, so
// that a small index stays small. Regions go back to the system when the pool ends.
// Thread-compatible.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace tarn::kvstore {

class PiecePool {
 public:
  static constexpr size_t kPieceBytes = size_t{512} << 10;
  static constexpr size_t kMaxPieces = 32768;

  // `max_bytes`: of pieces taken and bytes charged. At most kMaxPieces.
  explicit PiecePool(size_t max_bytes) : max_bytes_(max_bytes) {}

  enum class Content : uint8_t { kZeros, kAnything };
  // A piece, aligned to 4 KiB; nothing at the limit, or when the system has no memory.
  std::optional<uint32_t> Take(Content content = Content::kZeros);
  void Give(uint32_t piece);
  std::byte* At(uint32_t piece) const {
    return regions_[piece / kRegionPieces].get() + piece % kRegionPieces * kPieceBytes;
  }
  // How many could be taken now.
  size_t available() const;

  // Counts memory that its user allocates elsewhere; false, and nothing counted, at the limit.
  bool Charge(size_t bytes);
  void Discharge(size_t bytes) { charged_ -= bytes; }

  size_t bytes() const { return taken_ * kPieceBytes + charged_; }
  size_t max_bytes() const { return max_bytes_; }

 private:
  static constexpr size_t kRegionPieces = 4;
  static constexpr size_t kRegionBytes = kRegionPieces * kPieceBytes;
  struct Unmap {
    void operator()(std::byte* region) const;
  };
  bool AddRegion();

  const size_t max_bytes_;
  std::vector<std::unique_ptr<std::byte[], Unmap>> regions_;
  std::vector<uint32_t> fresh_;     // never used: zeros
  std::vector<uint32_t> returned_;  // used before
  size_t taken_ = 0;
  size_t charged_ = 0;
};

}  // namespace tarn::kvstore
