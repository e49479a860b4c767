#include "kvstore/core/lru.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn::kvstore {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();

class LruTest : public testing::Test {
 protected:
  void Add(int32_t page, Evictable evictable) {
    policy_.Insert(page, BlockKey{}, -1, {}, kNow);
    policy_.Allow(page, evictable);
  }
  LruPolicy policy_{4};
};

TEST_F(LruTest, NobodyMayGo) {
  EXPECT_EQ(policy_.Victim(kNow), std::nullopt);
  Add(0, Evictable::kNever);
  EXPECT_EQ(policy_.Victim(kNow), std::nullopt);
}

TEST_F(LruTest, OldestUseGoesFirst) {
  Add(2, Evictable::kFreely);
  Add(1, Evictable::kFreely);
  EXPECT_EQ(policy_.Victim(kNow), 2);
  policy_.Touch(2, kNow);
  EXPECT_EQ(policy_.Victim(kNow), 1);
  policy_.Erase(1);
  EXPECT_EQ(policy_.Victim(kNow), 2);
}

TEST_F(LruTest, ReluctantOnesGoLast) {
  Add(0, Evictable::kReluctantly);
  Add(1, Evictable::kFreely);
  EXPECT_EQ(policy_.Victim(kNow), 1);
  policy_.Allow(1, Evictable::kNever);
  EXPECT_EQ(policy_.Victim(kNow), 0);
}

TEST_F(LruTest, AUseBeforeItMayGoCounts) {
  Add(0, Evictable::kNever);
  Add(1, Evictable::kFreely);
  policy_.Touch(0, kNow);
  policy_.Allow(0, Evictable::kFreely);
  EXPECT_EQ(policy_.Victim(kNow), 1);
}

TEST_F(LruTest, RestCountsAsUse) {
  Add(0, Evictable::kFreely);
  Add(1, Evictable::kFreely);
  policy_.Rest(0, kNow);
  EXPECT_EQ(policy_.Victim(kNow), 1);
}

TEST_F(LruTest, ForecastsVictimsInOrder) {
  Add(0, Evictable::kReluctantly);
  for (int32_t page = 1; page < 4; ++page) Add(page, Evictable::kFreely);
  policy_.Touch(1, kNow);
  EXPECT_EQ(policy_.NextVictims(2, kNow), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(policy_.NextVictims(9, kNow), (std::vector<int32_t>{2, 3, 1}));
}

TEST_F(LruTest, GrowsBeyondItsHint) {
  Add(7, Evictable::kFreely);
  EXPECT_EQ(policy_.Victim(kNow), 7);
}

}  // namespace
}  // namespace tarn::kvstore
