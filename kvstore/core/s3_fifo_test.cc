#include "kvstore/core/s3_fifo.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn::kvstore {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

BlockKey Key(int number) {
  BlockKey key;
  key.bytes[0] = static_cast<uint8_t>(number);
  return key;
}

// Twenty pages: the small queue has two of them. Keys are the numbers of their pages.
class S3FifoTest : public testing::Test {
 protected:
  void Add(int32_t page, int32_t parent = -1) {
    policy_.Insert(page, Key(page), parent, {}, kNow);
    policy_.Allow(page, Evictable::kFreely);
    if (parent >= 0) policy_.Allow(parent, Evictable::kNever);
  }
  int32_t Evict() {
    const int32_t page = *policy_.Victim(kNow);
    EXPECT_EQ(policy_.Victim(kNow), page) << "asked twice";
    EXPECT_EQ(policy_.NextVictims(1, kNow), std::vector<int32_t>{page});
    policy_.Erase(page);
    return page;
  }
  S3FifoPolicy policy_{20};
};

TEST_F(S3FifoTest, WhatIsUsedOnceLeavesFirstInFirstOut) {
  EXPECT_EQ(policy_.Victim(kNow), std::nullopt);
  for (int32_t page = 0; page < 4; ++page) Add(page);
  policy_.Touch(0, kNow);
  policy_.Rest(1, kNow);
  EXPECT_EQ(policy_.NextVictims(3, kNow), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(Evict(), 0) << "one use more is not enough";
  EXPECT_EQ(Evict(), 1) << "resting is no use";
}

TEST_F(S3FifoTest, WhatIsUsedTwiceMoreStays) {
  for (int32_t page = 0; page < 4; ++page) Add(page);
  policy_.Touch(0, kNow);
  policy_.Touch(0, kNow);
  EXPECT_EQ(Evict(), 1);
  EXPECT_EQ(Evict(), 2);
  // One is left in the small queue, fewer than it may have: now the main queue gives.
  EXPECT_EQ(Evict(), 0);
  EXPECT_EQ(Evict(), 3);
  EXPECT_EQ(policy_.Victim(kNow), std::nullopt);
}

TEST_F(S3FifoTest, WhatComesBackGoesToTheMainQueue) {
  Add(0);
  EXPECT_EQ(Evict(), 0);
  Add(0);
  for (int32_t page = 1; page < 5; ++page) Add(page);
  EXPECT_EQ(Evict(), 1);
  EXPECT_EQ(Evict(), 2);
  EXPECT_EQ(Evict(), 3);
  EXPECT_EQ(Evict(), 0);
}

TEST_F(S3FifoTest, GhostsAreForgotten) {
  Add(0);
  EXPECT_EQ(Evict(), 0);
  for (int32_t page = 1; page <= 18; ++page) {
    Add(page);
    EXPECT_EQ(Evict(), page);
  }
  Add(0);
  Add(19);
  EXPECT_EQ(Evict(), 0) << "eighteen ghosts came after it";
}

TEST_F(S3FifoTest, UsesInTheMainQueueBuyAnotherRound) {
  for (int32_t page = 0; page < 4; ++page) Add(page);
  for (int32_t page : {0, 0, 1, 1}) policy_.Touch(page, kNow);
  EXPECT_EQ(Evict(), 2) << "and 0 and 1 are in the main queue now";
  policy_.Touch(0, kNow);
  EXPECT_EQ(Evict(), 1);
  EXPECT_EQ(Evict(), 0);
}

TEST_F(S3FifoTest, ParentsMoveWithTheirChildren) {
  Add(9);
  EXPECT_EQ(Evict(), 9);
  Add(0);
  Add(9, 0);  // a ghost: to the main queue, and its parent with it
  for (int32_t page = 1; page < 4; ++page) Add(page);
  policy_.Allow(9, Evictable::kNever);
  policy_.Allow(0, Evictable::kFreely);
  EXPECT_EQ(Evict(), 1);
}

TEST_F(S3FifoTest, ReluctantOnesGoLast) {
  Add(0);
  Add(1);
  policy_.Allow(0, Evictable::kReluctantly);
  EXPECT_EQ(Evict(), 1);
  EXPECT_EQ(policy_.Victim(kNow), 0);
}

}  // namespace
}  // namespace tarn::kvstore
