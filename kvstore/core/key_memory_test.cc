#include "kvstore/core/key_memory.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

std::vector<BlockKey> Keys(int count) {
  Random random(1);
  std::vector<BlockKey> keys(count);
  for (BlockKey& key : keys) random.Fill(std::as_writable_bytes(std::span(key.bytes)));
  return keys;
}

TEST(KeyMemoryTest, RecallsOnce) {
  KeyMemory memory(100);
  const BlockKey key = Keys(1)[0];
  EXPECT_FALSE(memory.Recall(key).has_value());
  memory.Remember(key, {.uses = 3, .turn = 7});
  const std::optional<KeyMemory::Fact> fact = memory.Recall(key);
  ASSERT_TRUE(fact.has_value());
  EXPECT_EQ(fact->uses, 3);
  EXPECT_EQ(fact->turn, 7);
  EXPECT_FALSE(memory.Recall(key).has_value());
}

TEST(KeyMemoryTest, TheNewestFactCounts) {
  KeyMemory memory(100);
  const BlockKey key = Keys(1)[0];
  memory.Remember(key, {.uses = 1});
  memory.Remember(key, {.uses = 2});
  EXPECT_EQ(memory.Recall(key)->uses, 2);
}

TEST(KeyMemoryTest, RemembersAboutAsManyAsPromisedAndFewOthers) {
  constexpr int kKeys = 1 << 14;
  KeyMemory memory(kKeys);
  const std::vector<BlockKey> keys = Keys(4 * kKeys);
  for (int i = 0; i < 3 * kKeys; ++i) memory.Remember(keys[i], {});
  int recent = 0, old = 0, never = 0;
  for (int i = 0; i < kKeys / 2; ++i) {
    recent += memory.Recall(keys[3 * kKeys - 1 - i]).has_value();
    old += memory.Recall(keys[i]).has_value();
    never += memory.Recall(keys[3 * kKeys + i]).has_value();
  }
  EXPECT_GT(recent, kKeys / 2 * 9 / 10);
  EXPECT_LT(old, kKeys / 2 / 50);
  EXPECT_LT(never, kKeys / 2 / 1000);
}

}  // namespace
}  // namespace tarn::kvstore
