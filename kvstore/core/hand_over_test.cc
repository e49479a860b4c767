#include "kvstore/core/hand_over.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

namespace tarn::kvstore {
namespace {

constexpr absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

BlockKey Key(uint32_t number) {
  BlockKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  return key;
}

std::vector<BlockKey> Keys(uint32_t first, uint32_t end) {
  std::vector<BlockKey> keys;
  for (uint32_t i = first; i < end; ++i) keys.push_back(Key(i));
  return keys;
}

TEST(HeirloomsTest, KeepsTheBestAndOrdersThem) {
  Heirlooms heirlooms(4);
  for (uint32_t i = 0; i < 100; ++i) {
    heirlooms.Add({.key = Key(i), .in_memory = i < 50, .worth = static_cast<double>(i % 50)});
  }
  EXPECT_EQ(heirlooms.Take(), (std::vector<BlockKey>{Key(49), Key(48), Key(47), Key(46)}));
  heirlooms.Add({.key = Key(1), .in_memory = false, .worth = 9});
  heirlooms.Add({.key = Key(2), .in_memory = true, .last_use = kStart, .position = 1});
  heirlooms.Add({.key = Key(3), .in_memory = true, .last_use = kStart, .position = 0});
  heirlooms.Add({.key = Key(4), .in_memory = true, .last_use = kStart + absl::Seconds(1)});
  EXPECT_EQ(heirlooms.Take(), (std::vector<BlockKey>{Key(4), Key(3), Key(2), Key(1)}));
}

TEST(HandOverTest, OffersInPortionsAsTheyAreTaken) {
  HandOver leaving({.window = 3}, Keys(0, 7), kStart);
  std::set<BlockKey> taken;
  auto elsewhere = [&](const BlockKey& key) { return taken.contains(key); };
  EXPECT_EQ(leaving.Next(elsewhere, kStart), Keys(0, 3));
  EXPECT_EQ(leaving.Next(elsewhere, kStart), Keys(0, 0)) << "all on offer";
  taken = {Key(0), Key(2)};
  EXPECT_EQ(leaving.Next(elsewhere, kStart), Keys(3, 5));
  taken = {Key(1), Key(3), Key(4), Key(5)};
  EXPECT_EQ(leaving.Next(elsewhere, kStart), Keys(6, 7)) << "5 came to somebody by itself";
  EXPECT_EQ(leaving.end(), HandOver::End::kNotYet);
  taken = {Key(6)};
  leaving.Next(elsewhere, kStart);
  EXPECT_EQ(leaving.end(), HandOver::End::kAllOffered);
  EXPECT_EQ(leaving.taken(), 7u);
  EXPECT_EQ(leaving.left(), 0u);
}

TEST(HandOverTest, NothingToGiveIsOverAtOnce) {
  HandOver leaving({}, {}, kStart);
  leaving.Next([](const BlockKey&) { return false; }, kStart);
  EXPECT_EQ(leaving.end(), HandOver::End::kAllOffered);
}

TEST(HandOverTest, GivesUpWhatNobodyWants) {
  const absl::Duration patience = absl::Seconds(2);
  HandOver leaving({.window = 2, .patience = patience}, Keys(0, 6), kStart);
  auto none = [](const BlockKey&) { return false; };
  leaving.Next(none, kStart);
  leaving.Next(none, kStart + patience - absl::Milliseconds(1));
  EXPECT_EQ(leaving.end(), HandOver::End::kNotYet);
  leaving.Next(none, kStart + patience);
  EXPECT_EQ(leaving.end(), HandOver::End::kNotWanted);
  EXPECT_EQ(leaving.left(), 6u);
}

// Every second block has a taker: the others make room after a while.
TEST(HandOverTest, OffersInVainDoNotBlockTheRest) {
  HandOver leaving({.window = 2, .patience = absl::Seconds(2), .limit = absl::Seconds(60)},
                   Keys(0, 20), kStart);
  std::set<BlockKey> taken;
  absl::Time now = kStart;
  for (; leaving.end() == HandOver::End::kNotYet; now += absl::Milliseconds(100)) {
    ASSERT_LT(now, kStart + absl::Seconds(60));
    for (const BlockKey& key :
         leaving.Next([&](const BlockKey& key) { return taken.contains(key); }, now)) {
      if (key.bytes[0] % 2 == 1) taken.insert(key);
    }
  }
  EXPECT_EQ(leaving.end(), HandOver::End::kAllOffered);
  EXPECT_EQ(leaving.taken(), 10u);
  EXPECT_EQ(leaving.left(), 10u);
}

TEST(HandOverTest, HasALimit) {
  HandOver leaving({.window = 1, .limit = absl::Seconds(5)}, Keys(0, 1000), kStart);
  absl::Time now = kStart;
  BlockKey last;
  for (; leaving.end() == HandOver::End::kNotYet; now += absl::Milliseconds(100)) {
    std::vector<BlockKey> offered =
        leaving.Next([&](const BlockKey& key) { return now > kStart && key == last; }, now);
    ASSERT_EQ(offered.size(), 1u) << "each was taken by the next look";
    last = offered[0];
  }
  EXPECT_EQ(now, kStart + absl::Milliseconds(5100));
  EXPECT_EQ(leaving.end(), HandOver::End::kOutOfTime);
  EXPECT_EQ(leaving.taken(), 50u);
  EXPECT_EQ(leaving.left(), 950u);
  EXPECT_TRUE(leaving.Next([](const BlockKey&) { return true; }, now).empty()) << "it is over";
}

}  // namespace
}  // namespace tarn::kvstore
