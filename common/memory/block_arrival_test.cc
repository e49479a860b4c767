#include "common/memory/block_arrival.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/runtime/random.h"

namespace tarn {
namespace {

struct alignas(4096) Line {
  std::byte bytes[4096];
};

class Page {
 public:
  explicit Page(size_t size) : lines_(size / sizeof(Line)), size_(size) {}
  std::span<std::byte> bytes() { return {reinterpret_cast<std::byte*>(lines_.data()), size_}; }

 private:
  std::vector<Line> lines_;
  size_t size_;
};

// A payload of whole pieces, and one with a tail.
class BlockArrivalTest : public testing::TestWithParam<int> {
 protected:
  BlockArrivalTest()
      : layout_{.layers = GetParam(),
                .kv_heads = 1,
                .head_dim = 40,
                .block_tokens = 16,
                .type = KvType::kBf16},
        from_(layout_.page_bytes()),
        to_(layout_.page_bytes()) {
    Random(1).Fill(from_.bytes());
    SealBlock(layout_, identity_, from_.bytes());
  }
  size_t size() const { return layout_.payload_offset() + layout_.payload_bytes(); }
  BlockArrival Take() { return BlockArrival(layout_, identity_, to_.bytes()); }

  BlockLayout layout_;
  BlockIdentity identity_{.epoch = 5, .token_count = 16};
  Page from_;
  Page to_;
};

TEST_P(BlockArrivalTest, AnyCutGivesTheBlockAndItsVerdict) {
  Random random(7);
  for (int round = 0; round < 50; ++round) {
    std::memset(to_.bytes().data(), 0, to_.bytes().size());
    BlockArrival arrival = Take();
    for (size_t at = 0; at < size();) {
      const size_t longest = round % 2 == 0 ? 300 : 20'000;
      const size_t n = std::min<size_t>(size() - at, random.UniformInt(1, longest));
      const auto part = from_.bytes().subspan(at, n);
      if (random.Chance(0.5)) {
        arrival.Copy(part);
      } else {
        std::memcpy(to_.bytes().data() + at, part.data(), n);
        arrival.Placed(n);
      }
      at += n;
    }
    EXPECT_TRUE(arrival.Finish().ok());
    EXPECT_EQ(std::memcmp(to_.bytes().data(), from_.bytes().data(), size()), 0);
    EXPECT_TRUE(VerifyBlock(layout_, identity_, to_.bytes()).ok());
  }
}

TEST_P(BlockArrivalTest, AFlippedBitAnywhereIsSeen) {
  Random random(8);
  for (int round = 0; round < 100; ++round) {
    const size_t at = random.UniformInt(layout_.payload_offset(), size() - 1);
    const auto bit = std::byte{1} << static_cast<int>(random.UniformInt(8));
    from_.bytes()[at] ^= bit;
    BlockArrival arrival = Take();
    arrival.Copy(from_.bytes().first(size()));
    EXPECT_EQ(arrival.Finish().code(), absl::StatusCode::kDataLoss) << "at " << at;
    from_.bytes()[at] ^= bit;
  }
}

// The piece is hashed as it was copied, not as the owner has it afterwards.
TEST_P(BlockArrivalTest, JudgesTheCopyNotTheSource) {
  BlockArrival arrival = Take();
  const size_t half = size() / 2;
  arrival.Copy(from_.bytes().first(half));
  std::memset(from_.bytes().data() + layout_.payload_offset(), 0, half - layout_.payload_offset());
  arrival.Copy(from_.bytes().subspan(half, size() - half));
  EXPECT_TRUE(arrival.Finish().ok());
  EXPECT_TRUE(VerifyBlock(layout_, identity_, to_.bytes()).ok());
}

TEST_P(BlockArrivalTest, AnotherBlockIsAborted) {
  identity_.epoch = 6;
  BlockArrival arrival = Take();
  arrival.Copy(from_.bytes());
  EXPECT_EQ(arrival.Finish().code(), absl::StatusCode::kAborted);
}

// 20 pieces of payload; and 9 with a tail of 1,536 bytes.
INSTANTIATE_TEST_SUITE_P(Pieces, BlockArrivalTest, testing::Values(32, 15));

}  // namespace
}  // namespace tarn
