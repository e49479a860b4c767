#include "common/memory/block_arrival.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>

namespace tarn {

BlockArrival::BlockArrival(const BlockLayout& layout, const BlockIdentity& expected,
                           std::span<std::byte> page)
    : layout_(layout),
      expected_(expected),
      page_(page),
      payload_end_(layout.payload_offset() + layout.payload_bytes()),
      piece_begin_(layout.payload_offset()),
      hasher_(layout.payload_bytes()) {
  CHECK_EQ(page.size(), layout.page_bytes());
}

size_t BlockArrival::piece_end() const {
  return std::min(piece_begin_ + PayloadHasher::kPiece, payload_end_);
}

void BlockArrival::Copy(std::span<const std::byte> from) {
  CHECK_LE(from.size(), page_.size() - placed_);
  while (!from.empty()) {
    const bool whole = placed_ == piece_begin_ && from.size() >= PayloadHasher::kPiece &&
                       piece_end() - piece_begin_ == PayloadHasher::kPiece;
    if (whole) {
      hasher_.CopyAndAdd(from.data(), page_.data() + placed_);
      piece_begin_ = placed_ += PayloadHasher::kPiece;
      from = from.subspan(PayloadHasher::kPiece);
      continue;
    }
    // Up to the next piece: the header, a piece that two calls share, or the tail.
    const size_t end = placed_ < piece_begin_ ? piece_begin_ : piece_end();
    const size_t size = std::min(from.size(), placed_ < end ? end - placed_ : from.size());
    std::memcpy(page_.data() + placed_, from.data(), size);
    Placed(size);
    from = from.subspan(size);
  }
}

void BlockArrival::Placed(size_t size) {
  CHECK_LE(size, page_.size() - placed_);
  placed_ += size;
  AddPlacedPieces();
}

void BlockArrival::AddPlacedPieces() {
  while (piece_begin_ < payload_end_ && placed_ >= piece_end()) {
    hasher_.Add(page_.subspan(piece_begin_, piece_end() - piece_begin_));
    piece_begin_ = piece_end();
  }
}

absl::Status BlockArrival::Finish() {
  CHECK_GE(placed_, payload_end_);
  return VerifyBlock(layout_, expected_, page_, hasher_.Checksum());
}

}  // namespace tarn
