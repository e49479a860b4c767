#include "kvstore/tier/ssd/index_record.h"

#include <gtest/gtest.h>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

IndexRecord Example() {
  IndexRecord record;
  record.epoch = 5;
  record.checksum = 0x1234567890abcdef;
  record.size = 1 << 20;
  record.sequence = 99;
  record.block.key = {{1, 2, 3}};
  record.block.parent = BlockKey{{4, 5}};
  record.block.token_count = 31;
  record.block.traits = {TenantId("a tenant"), 7, 8, 9};
  record.block.last_use = absl::FromUnixSeconds(1'700'000'000) + absl::Nanoseconds(5);
  record.block.uses = 11;
  return record;
}

void ExpectEqual(const IndexRecord& a, const IndexRecord& b) {
  EXPECT_EQ(a.block.key, b.block.key);
  EXPECT_EQ(a.block.parent, b.block.parent);
  EXPECT_EQ(a.block.token_count, b.block.token_count);
  EXPECT_EQ(a.block.traits, b.block.traits);
  EXPECT_EQ(a.block.last_use, b.block.last_use);
  EXPECT_EQ(a.block.uses, b.block.uses);
  EXPECT_EQ(a.epoch, b.epoch);
  EXPECT_EQ(a.checksum, b.checksum);
  EXPECT_EQ(a.size, b.size);
  EXPECT_EQ(a.sequence, b.sequence);
}

TEST(IndexRecord, DecodesWhatItEncodes) {
  IndexRecord record = Example();
  ExpectEqual(DecodeIndexRecord(Encode(record)).value(), record);
  record.block.parent.reset();
  record.block.traits.tenant = TenantId();
  ExpectEqual(DecodeIndexRecord(Encode(record)).value(), record);
}

TEST(IndexRecord, HasNotChangedSinceTheFirstDirectoryWasWritten) {
  const std::string bytes = Encode(Example());
  EXPECT_EQ(bytes.size(), 2u + 16 + 16 + 4 + 4 + 8 + 12 + 2 + 8 + 32);
  EXPECT_EQ(bytes[0], 1);
  EXPECT_EQ(bytes[2], 1);
  EXPECT_EQ(bytes[bytes.size() - 8], 99);
}

TEST(IndexRecord, WhatIsCutShortOrTooLongIsDataLoss) {
  const std::string bytes = Encode(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeIndexRecord(bytes.substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
        << size;
  }
  EXPECT_FALSE(DecodeIndexRecord(bytes + "x").ok());
}

TEST(IndexRecord, OtherVersionsAndFlagsAreDataLoss) {
  for (const size_t offset : {0, 1}) {
    std::string bytes = Encode(Example());
    bytes[offset] = 2;
    EXPECT_EQ(DecodeIndexRecord(bytes).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(IndexRecord, ATenantOfAnyLengthIsKeptOrCut) {
  IndexRecord record = Example();
  record.block.traits.tenant = TenantId(std::string(100'000, 't'));
  EXPECT_EQ(DecodeIndexRecord(Encode(record))->block.traits.tenant.value().size(), 65'535u);
}

TEST(SlotHeat, DecodesWhatItEncodes) {
  const SlotHeat heat{3, absl::FromUnixSeconds(5), 7};
  const absl::StatusOr<SlotHeat> decoded = DecodeSlotHeat(Encode(heat));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->sequence, 3u);
  EXPECT_EQ(decoded->last_use, heat.last_use);
  EXPECT_EQ(decoded->uses, 7u);
  EXPECT_FALSE(DecodeSlotHeat("short").ok());
}

TEST(Superblock, DecodesWhatItEncodesAndNamesAnotherFormat) {
  Superblock superblock{.layout_fingerprint = 1, .model_fingerprint = 2, .slot_bytes = 3};
  superblock.layout = "a layout";
  EXPECT_EQ(DecodeSuperblock(Encode(superblock)).value(), superblock);
  superblock.format = 9;
  EXPECT_EQ(DecodeSuperblock(Encode(superblock)).value().format, 9u);
  EXPECT_FALSE(DecodeSuperblock("x").ok());
  EXPECT_FALSE(DecodeSuperblock("").ok());
}

}  // namespace
}  // namespace tarn::kvstore
