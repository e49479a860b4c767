#pragma once

// What stands in front of every block's payload, and how a reader checks it (invariant I4).
//
// The owner of a page seals a block when its payload is complete; whoever reads the page later, by
// a one-sided read or from disk, verifies before use. No lock or lease guards the read: if the
// owner reused the page meanwhile, then key, epoch or checksum do not match, and that is a miss.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/base/block_key.h"
#include "common/memory/block_layout.h"

namespace tarn {

// 64 bytes, little-endian, as in memory. Pages of this process and copies of pages of others.
struct BlockHeader {
  static constexpr uint64_t kMagic = 0x314b4c424e524154;  // "TARNBLK1"

  uint64_t magic = 0;
  BlockKey key;
  uint64_t layout_fingerprint = 0;
  uint32_t token_count = 0;  // tokens with KV in this block; fewer than the layout's at a tail
  uint32_t reserved = 0;
  uint64_t payload_bytes = 0;
  uint64_t epoch = 0;     // counts the uses of this page by its owner
  uint64_t checksum = 0;  // PayloadChecksum of the payload
};
static_assert(sizeof(BlockHeader) == 64);

// Checksum of a payload: XXH3-64 of each 4 KiB piece, seeded by the piece's number, then XXH3-64 of
// the pieces' digests in order. Pieces are independent, so a GPU computes it at memory speed too.
// The last piece may be short. (XXH3: Yann Collet, github.com/Cyan4973/xxHash.)
uint64_t PayloadChecksum(std::span<const std::byte> payload);

// PayloadChecksum of a payload that comes piece by piece, in order. Not thread-safe.
class PayloadHasher {
 public:
  static constexpr size_t kPiece = 4096;

  explicit PayloadHasher(size_t payload_bytes);

  // The next piece: kPiece bytes, or what is left.
  void Add(std::span<const std::byte> piece);
  // The same for kPiece bytes that are copied meanwhile: `from` may change, and what counts is what
  // is in `to` afterwards. Goes past the caches if `to` is aligned to 64.
  void CopyAndAdd(const std::byte* from, std::byte* to);

  // Once all pieces have come.
  uint64_t Checksum() const;

 private:
  std::vector<uint64_t> digests_;
};

// What a reader expects of a page.
struct BlockIdentity {
  BlockKey key;
  uint64_t epoch = 0;
  uint32_t token_count = 0;
};

// Writes the header of a block whose payload lies complete in `page` (layout.page_bytes() long).
// The magic is written last.
void SealBlock(const BlockLayout& layout, const BlockIdentity& identity, std::span<std::byte> page);

// Makes a verified copy of a block that lies in `page` this page's own, under its epoch here.
void RestampBlock(std::span<std::byte> page, uint64_t epoch);

// Takes the block out of use: a concurrent one-sided read cannot verify afterwards. Call before
// the first byte of the page changes.
void InvalidateBlock(std::span<std::byte> page);

// OK if `page` holds exactly this block, intact. ABORTED: another block or epoch (it was reused).
// DATA_LOSS: layout or checksum differ.
absl::Status VerifyBlock(const BlockLayout& layout, const BlockIdentity& expected,
                         std::span<const std::byte> page);
// The same, for a payload whose checksum the caller has computed.
absl::Status VerifyBlock(const BlockLayout& layout, const BlockIdentity& expected,
                         std::span<const std::byte> page, uint64_t payload_checksum);

// The same without a look at the payload, in nanoseconds: whether `page` is still what it was.
absl::Status VerifyHeader(const BlockLayout& layout, const BlockIdentity& expected,
                          std::span<const std::byte> page);

// The header at the start of `page`, unverified.
const BlockHeader& HeaderOf(std::span<const std::byte> page);

}  // namespace tarn
