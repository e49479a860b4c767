#include "common/base/block_key.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tarn {
namespace {

std::vector<TokenId> Tokens(int count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 7);
  return tokens;
}

// Computed with Python's hashlib: sha256(parent + little-endian int32 tokens)[:16].
TEST(BlockKey, IsTruncatedSha256OfParentAndTokens) {
  const std::vector<TokenId> tokens = {1, 2, 3, -1};
  EXPECT_EQ(ChildKey(BlockKey{}, tokens).ToHex(), "e3c636277f39377408b6498f6ad7212d");
}

TEST(BlockKey, ChainCoversFullBlocksOnly) {
  const auto tokens = Tokens(39);
  const BlockKey root = BlockDomain{}.Root();
  const auto keys = ChainKeys(root, tokens, 16);
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys[0], ChildKey(root, std::span(tokens).first(16)));
  EXPECT_EQ(keys[1], ChildKey(keys[0], std::span(tokens).subspan(16, 16)));
}

TEST(BlockKey, SameTokensAfterAnotherPrefixHaveAnotherKey) {
  auto a = Tokens(32);
  auto b = a;
  b[0]++;
  const BlockKey root = BlockDomain{}.Root();
  EXPECT_NE(ChainKeys(root, a, 16)[1], ChainKeys(root, b, 16)[1]);
}

TEST(BlockKey, EveryFieldOfTheDomainSeparates) {
  const BlockDomain base{.model_fingerprint = 1, .layout_fingerprint = 2, .lora = "a", .salt = "b"};
  std::vector<BlockDomain> others(5, base);
  others[0].model_fingerprint++;
  others[1].layout_fingerprint++;
  others[2].lora = "ab", others[2].salt = "";  // The concatenation is the same.
  others[3].salt = "c";
  others[4].lora = "";
  for (const BlockDomain& other : others) EXPECT_NE(base.Root(), other.Root());
}

TEST(BlockKey, BytesRoundTripAndWrongSizeIsRefused) {
  const BlockKey key = ChildKey(BlockKey{}, Tokens(4));
  EXPECT_EQ(*BlockKey::FromBytes(key.ToBytes()), key);
  EXPECT_EQ(BlockKey::FromBytes("short").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tarn
