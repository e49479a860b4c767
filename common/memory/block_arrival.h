#pragma once

// Verifies a block while a transport brings it, with no second walk over its bytes.

#include <cstddef>
#include <span>

#include "common/memory/block_header.h"
#include "common/memory/block_layout.h"
#include "common/transport/transport.h"

namespace tarn {

// For an op that reads a block's page from its start, at least to the end of the payload, into
// `page`. Its verdict is that of VerifyBlock.
class BlockArrival : public Arrival {
 public:
  // `page` outlives this and is layout.page_bytes() long.
  BlockArrival(const BlockLayout& layout, const BlockIdentity& expected, std::span<std::byte> page);

  void Copy(std::span<const std::byte> from) override;
  void Placed(size_t size) override;
  absl::Status Finish() override;

 private:
  size_t piece_end() const;
  void AddPlacedPieces();

  const BlockLayout layout_;
  const BlockIdentity expected_;
  const std::span<std::byte> page_;
  // In bytes from the start of the page.
  const size_t payload_end_;
  size_t piece_begin_;  // of the piece that is hashed next
  size_t placed_ = 0;
  PayloadHasher hasher_;
};

}  // namespace tarn
