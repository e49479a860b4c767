#include "common/memory/block_header.h"

#include <gtest/gtest.h>

// The scalar code of xxHash: shares no vector code with what is tested.
#define XXH_VECTOR 0
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>
#include <vector>

#include "common/memory/payload_checksum.h"
#include "common/runtime/random.h"

namespace tarn {
namespace {

constexpr size_t kPiece = 4096;

std::vector<std::byte> RandomBytes(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  Random(seed).Fill(bytes);
  return bytes;
}

uint64_t ComposedChecksum(std::span<const std::byte> payload) {
  std::vector<uint64_t> digests;
  for (size_t begin = 0; begin < payload.size(); begin += kPiece) {
    const size_t size = std::min(kPiece, payload.size() - begin);
    digests.push_back(XXH3_64bits_withSeed(payload.data() + begin, size, begin / kPiece));
  }
  return XXH3_64bits(digests.data(), digests.size() * sizeof(uint64_t));
}

TEST(PayloadChecksum, IsXxh3OfSeededPieces) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{4097},
                            63 * kPiece, 64 * kPiece, 64 * kPiece + 1, 200 * kPiece + 100}) {
    const auto payload = RandomBytes(size, size + 1);
    EXPECT_EQ(PayloadChecksum(payload), ComposedChecksum(payload)) << size << " bytes";
  }
}

TEST(PayloadChecksum, HasNotChangedSinceTheFirstBlockWasWritten) {
  EXPECT_EQ(PayloadChecksum({}), 0x2d06800538d394c2u);  // XXH3-64 of nothing
  EXPECT_EQ(PayloadChecksum(std::vector<std::byte>(2 * kPiece)), 0xf96071bfa547eb6fu);
}

TEST(PayloadChecksum, IsTheSameWithEveryInstructionSet) {
  const auto payload = RandomBytes(300 * kPiece + 33, 7);
  const auto* data = reinterpret_cast<const unsigned char*>(payload.data());
  const uint64_t expected = ComposedChecksum(payload);
  EXPECT_EQ(internal::ChecksumSse2(data, payload.size()), expected);
  if (__builtin_cpu_supports("avx2")) {
    EXPECT_EQ(internal::ChecksumAvx2(data, payload.size()), expected);
  }
  if (__builtin_cpu_supports("avx512f")) {
    EXPECT_EQ(internal::ChecksumAvx512(data, payload.size()), expected);
  }
}

TEST(PayloadHasher, CopiesAndHashesLikeTheWhole) {
  for (const size_t misaligned : {0, 1, 16}) {
    const auto payload = RandomBytes(70 * kPiece + 33, 9);
    std::vector<std::byte> copy(payload.size() + 128);
    std::byte* to = copy.data();
    while (reinterpret_cast<uintptr_t>(to) % 64 != misaligned) ++to;
    PayloadHasher hasher(payload.size());
    for (size_t i = 0; i < 70; ++i) {
      hasher.CopyAndAdd(payload.data() + i * kPiece, to + i * kPiece);
    }
    hasher.Add(std::span(payload).last(33));
    EXPECT_EQ(hasher.Checksum(), ComposedChecksum(payload));
    EXPECT_EQ(std::memcmp(to, payload.data(), 70 * kPiece), 0);
  }
}

TEST(PayloadHasher, CopiesTheSameWithEveryInstructionSet) {
  const auto payload = RandomBytes(kPiece, 7);
  const auto* data = reinterpret_cast<const unsigned char*>(payload.data());
  const uint64_t expected = XXH3_64bits_withSeed(data, kPiece, 77);
  struct alignas(64) {
    unsigned char bytes[kPiece];
  } to;
  const auto expect = [&](auto copy) {
    std::memset(&to, 0, sizeof(to));
    EXPECT_EQ(copy(to.bytes, data, 77), expected);
    EXPECT_EQ(std::memcmp(to.bytes, data, kPiece), 0);
  };
  expect(internal::CopyPieceSse2);
  if (__builtin_cpu_supports("avx2")) expect(internal::CopyPieceAvx2);
  if (__builtin_cpu_supports("avx512f")) expect(internal::CopyPieceAvx512);
}

TEST(PayloadChecksum, SeesPiecesThatChangedPlaces) {
  auto payload = RandomBytes(2 * kPiece, 8);
  const uint64_t before = PayloadChecksum(payload);
  std::swap_ranges(payload.begin(), payload.begin() + kPiece, payload.begin() + kPiece);
  EXPECT_NE(PayloadChecksum(payload), before);
}

class BlockHeaderTest : public testing::Test {
 protected:
  BlockHeaderTest() : page_(layout_.page_bytes() / sizeof(Line)) {
    Random(9).Fill(page());
    SealBlock(layout_, identity_, page());
  }

  std::span<std::byte> page() {
    return {reinterpret_cast<std::byte*>(page_.data()), layout_.page_bytes()};
  }
  absl::Status Verify() { return VerifyBlock(layout_, identity_, page()); }
  absl::StatusCode CodeWithFlip(size_t offset, int bit = 0) {
    const auto mask = std::byte{1} << bit;
    page()[offset] ^= mask;
    const absl::Status status = Verify();
    page()[offset] ^= mask;
    return status.code();
  }

  struct alignas(64) Line {
    std::byte bytes[64];
  };

  const BlockLayout layout_{
      .layers = 2, .kv_heads = 2, .head_dim = 16, .block_tokens = 16, .type = KvType::kF32};
  const BlockIdentity identity_{.key = {{1, 2, 3}}, .epoch = 5, .token_count = 16};
  std::vector<Line> page_;
};

TEST_F(BlockHeaderTest, ASealedBlockVerifies) {
  EXPECT_TRUE(Verify().ok()) << Verify();
  EXPECT_EQ(HeaderOf(page()).epoch, 5u);
  EXPECT_EQ(HeaderOf(page()).payload_bytes, layout_.payload_bytes());
}

TEST_F(BlockHeaderTest, AnyFlippedHeaderBitIsSeen) {
  for (size_t offset = 0; offset < sizeof(BlockHeader); ++offset) {
    for (int bit = 0; bit < 8; ++bit) {
      const absl::StatusCode code = CodeWithFlip(offset, bit);
      EXPECT_TRUE(code == absl::StatusCode::kAborted || code == absl::StatusCode::kDataLoss)
          << "byte " << offset << " bit " << bit << ": " << absl::StatusCodeToString(code);
    }
  }
  EXPECT_TRUE(Verify().ok());
}

TEST_F(BlockHeaderTest, AnyFlippedPayloadByteIsSeen) {
  const size_t end = layout_.payload_offset() + layout_.payload_bytes();
  for (size_t offset = layout_.payload_offset(); offset < end; ++offset) {
    ASSERT_EQ(CodeWithFlip(offset, offset % 8), absl::StatusCode::kDataLoss) << offset;
  }
}

TEST_F(BlockHeaderTest, VerifyHeaderSeesTheHeaderOnly) {
  page()[layout_.payload_offset()] ^= std::byte{1};
  EXPECT_TRUE(VerifyHeader(layout_, identity_, page()).ok());
  BlockIdentity other = identity_;
  other.epoch = 6;
  EXPECT_EQ(VerifyHeader(layout_, other, page()).code(), absl::StatusCode::kAborted);
  InvalidateBlock(page());
  EXPECT_EQ(VerifyHeader(layout_, identity_, page()).code(), absl::StatusCode::kAborted);
}

TEST_F(BlockHeaderTest, PaddingIsNotPartOfTheBlock) {
  EXPECT_EQ(CodeWithFlip(sizeof(BlockHeader)), absl::StatusCode::kOk);
}

TEST_F(BlockHeaderTest, AReusedPageIsAborted) {
  BlockIdentity other = identity_;
  other.key.bytes[15] = 1;
  EXPECT_EQ(VerifyBlock(layout_, other, page()).code(), absl::StatusCode::kAborted);
  other = identity_;
  other.epoch = 6;
  EXPECT_EQ(VerifyBlock(layout_, other, page()).code(), absl::StatusCode::kAborted);
}

TEST_F(BlockHeaderTest, AnInvalidatedPageIsAbortedUntilSealedAgain) {
  InvalidateBlock(page());
  EXPECT_EQ(Verify().code(), absl::StatusCode::kAborted);
  SealBlock(layout_, identity_, page());
  EXPECT_TRUE(Verify().ok());
}

TEST_F(BlockHeaderTest, OtherLayoutTokenCountOrPageSizeIsDataLoss) {
  BlockLayout swapped = layout_;
  swapped.layers = 1, swapped.kv_heads = 4;  // the same sizes
  EXPECT_EQ(VerifyBlock(swapped, identity_, page()).code(), absl::StatusCode::kDataLoss);
  BlockIdentity shorter = identity_;
  shorter.token_count = 15;
  EXPECT_EQ(VerifyBlock(layout_, shorter, page()).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(VerifyBlock(layout_, identity_, page().first(4096)).code(),
            absl::StatusCode::kDataLoss);
}

// What a one-sided read sees when the owner refills the page under it.
TEST_F(BlockHeaderTest, AMixOfTwoBlocksDoesNotVerify) {
  const std::vector<std::byte> old(page().begin(), page().end());
  InvalidateBlock(page());
  Random(10).Fill(page().subspan(layout_.payload_offset(), layout_.payload_bytes()));
  SealBlock(layout_, {.key = {{9}}, .epoch = 6, .token_count = 16}, page());
  const size_t middle = layout_.payload_offset() + layout_.payload_bytes() / 2;
  std::memcpy(page().data(), old.data(), middle);
  EXPECT_EQ(Verify().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tarn
