#pragma once

// What the SSD tier's index keeps, as bytes: fixed fields, little-endian, a version in front.
//
// Decoders take any bytes. Plain functions; thread-safe.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kvstore/tier/block_store.h"

namespace tarn::kvstore {

// Which block lies in a slot.
struct IndexRecord {
  BlockRecord block;
  uint64_t epoch = 0;     // of its header
  uint64_t checksum = 0;  // of its payload
  uint64_t size = 0;      // of its page, in bytes
  uint64_t sequence = 0;  // of its write: higher is later
};

// How often the block that was written as `sequence` has been read; its record has the first
// values.
struct SlotHeat {
  uint64_t sequence = 0;
  absl::Time last_use;
  uint32_t uses = 0;
};

// Whose blocks an index names.
struct Superblock {
  static constexpr uint32_t kFormat = 1;

  uint32_t format = kFormat;
  uint64_t layout_fingerprint = 0;
  uint64_t model_fingerprint = 0;
  uint64_t slot_bytes = 0;
  std::string layout;  // BlockLayout::ToString(), for messages

  friend bool operator==(const Superblock&, const Superblock&) = default;
};

// A tenant's name is cut to 64 KiB.
std::string Encode(const IndexRecord& record);
std::string Encode(const SlotHeat& heat);
std::string Encode(const Superblock& superblock);

// DATA_LOSS: not what Encode made.
absl::StatusOr<IndexRecord> DecodeIndexRecord(std::string_view bytes);
absl::StatusOr<SlotHeat> DecodeSlotHeat(std::string_view bytes);
// A format that is not ours is decoded as far as it names itself.
absl::StatusOr<Superblock> DecodeSuperblock(std::string_view bytes);

}  // namespace tarn::kvstore
