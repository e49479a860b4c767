// Any bytes are decoded or refused, and what is decoded is what it says.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "kvstore/tier/ssd/index_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tarn::kvstore;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<IndexRecord> record = DecodeIndexRecord(bytes);
  if (record.ok() && Encode(*record) != bytes) abort();
  const absl::StatusOr<SlotHeat> heat = DecodeSlotHeat(bytes);
  if (heat.ok() && Encode(*heat) != bytes) abort();
  const absl::StatusOr<Superblock> superblock = DecodeSuperblock(bytes);
  if (superblock.ok() && superblock->format == Superblock::kFormat &&
      Encode(*superblock) != bytes) {
    abort();
  }
  return 0;
}
