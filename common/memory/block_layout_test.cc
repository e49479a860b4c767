#include "common/memory/block_layout.h"

#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "gtest/gtest.h"

namespace tarn {
namespace {

BlockLayout Qwen8b() {
  return {.layers = 36,
          .kv_heads = 8,
          .head_dim = 128,
          .block_tokens = 64,
          .type = KvType::kBf16,
          .alignment = 256};
}

TEST(BlockLayoutTest, SizesOfAKnownModel) {
  const BlockLayout layout = Qwen8b();
  EXPECT_TRUE(layout.Validate().ok());
  EXPECT_EQ(layout.tile_bytes(), 64u * 128 * 2);
  EXPECT_EQ(layout.payload_bytes(), 9u << 20);
  EXPECT_EQ(layout.page_bytes(), (9u << 20) + 4096);
  EXPECT_EQ(layout.ToString(), "36 layers × 8 heads × 128, bf16, 64 tokens a block (9.0 MiB)");
}

TEST(BlockLayoutTest, TilesFillThePayloadOnce) {
  const BlockLayout layout = {.layers = 3, .kv_heads = 2, .head_dim = 24, .block_tokens = 16};
  ASSERT_TRUE(layout.Validate().ok());
  std::set<size_t> offsets;
  for (int head = 0; head < 2; ++head) {
    for (int layer = 0; layer < 3; ++layer) {
      for (int value = 0; value < 2; ++value) offsets.insert(layout.TileOffset(head, layer, value));
    }
  }
  ASSERT_EQ(offsets.size(), 12u);
  size_t expected = 0;
  for (size_t offset : offsets) {
    EXPECT_EQ(offset, expected);
    expected += layout.tile_bytes();
  }
  EXPECT_EQ(expected, layout.payload_bytes());
  // A shard of heads is one slice.
  EXPECT_EQ(layout.TileOffset(1, 0, 0), layout.payload_bytes() / 2);
}

TEST(BlockLayoutTest, PageHoldsHeaderPadAndPayload) {
  BlockLayout layout = {.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = 16};
  layout.alignment = 4096;
  EXPECT_EQ(layout.page_bytes(), 8192u);
  layout.alignment = 64;
  EXPECT_EQ(layout.page_bytes(), 4096u);
}

TEST(BlockLayoutTest, FingerprintCoversEveryField) {
  const BlockLayout base = Qwen8b();
  std::vector<BlockLayout> others(6, base);
  others[0].layers = 35;
  others[1].kv_heads = 4;
  others[2].head_dim = 64;
  others[3].block_tokens = 32;
  others[4].type = KvType::kF32;
  others[5].alignment = 512;
  std::set<uint64_t> prints = {base.Fingerprint()};
  for (const BlockLayout& other : others) prints.insert(other.Fingerprint());
  EXPECT_EQ(prints.size(), 7u);
  EXPECT_EQ(Qwen8b().Fingerprint(), base.Fingerprint());
  // Peers of other builds compare this value: it never changes.
  EXPECT_EQ(base.Fingerprint(), 14160845195198490890u);
}

TEST(BlockLayoutTest, ValidateNamesTheField) {
  struct Case {
    const char* field;
    void (*spoil)(BlockLayout&);
  };
  const Case cases[] = {
      {"layers", [](BlockLayout& l) { l.layers = 0; }},
      {"kv_heads", [](BlockLayout& l) { l.kv_heads = -1; }},
      {"head_dim", [](BlockLayout& l) { l.head_dim = 5000; }},
      {"block_tokens", [](BlockLayout& l) { l.block_tokens = 8; }},
      {"block_tokens", [](BlockLayout& l) { l.block_tokens = 48; }},
      {"alignment", [](BlockLayout& l) { l.alignment = 32; }},
      {"alignment", [](BlockLayout& l) { l.alignment = 96; }},
      {"type", [](BlockLayout& l) { l.type = static_cast<KvType>(7); }},
      {"payload", [](BlockLayout& l) { l.layers = 1024, l.kv_heads = 1024; }},
  };
  for (const Case& c : cases) {
    BlockLayout layout = Qwen8b();
    c.spoil(layout);
    const absl::Status status = layout.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_NE(Message(status).find(c.field), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace tarn
