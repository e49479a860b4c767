#include "kvstore/core/admission.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn::kvstore {
namespace {

using Verdict = AdmissionVerdict;

TEST(PlacedAdmissionTest, EachBlockHasOneStore) {
  const std::vector<StoreView> stores = {{NodeId("a"), 1}, {NodeId("b"), 1}, {NodeId("c"), 1}};
  for (uint8_t i = 0; i < 100; ++i) {
    AdmissionCandidate candidate{.holders = 1, .store_pages = 4, .stores = stores};
    candidate.key.bytes[3] = i;
    int takers = 0;
    for (const StoreView& store : stores) {
      takers += PlacedAdmission(store.node, {}).Decide(candidate) == Verdict::kTake;
    }
    EXPECT_EQ(takers, 1);
  }
}

TEST(PlacedAdmissionTest, HotBlocksHaveSeveral) {
  const std::vector<StoreView> stores = {{NodeId("a"), 1}, {NodeId("b"), 1}, {NodeId("c"), 1}};
  const AdmissionCandidate hot{
      .holders = 2, .store_pages = 4, .stores = stores, .uses_a_second = 100};
  const ReplicationOptions options{.uses_a_second_per_copy = 100, .max_copies = 2};
  int takers = 0;
  for (const StoreView& store : stores) {
    takers += PlacedAdmission(store.node, options).Decide(hot) == Verdict::kTake;
  }
  EXPECT_EQ(takers, 2);
}

TEST(PlacedAdmissionTest, TakesNothingThatIsHeldOftenEnoughOrCannotBePulled) {
  const std::vector<StoreView> stores = {{NodeId("a"), 1}};
  const PlacedAdmission policy(NodeId("a"), {});
  EXPECT_EQ(policy.Decide({.holders = 1, .store_pages = 4, .stores = stores}), Verdict::kTake);
  EXPECT_EQ(policy.Decide({.holders = 2, .store_pages = 4, .stores = stores}), Verdict::kEnough);
  EXPECT_EQ(policy.Decide({.holders = 0, .store_pages = 4, .stores = stores}), Verdict::kGone);
  EXPECT_EQ(policy.Decide({.holders = 1, .store_pages = 0, .stores = stores}), Verdict::kNoRoom);
  EXPECT_EQ(policy.Decide({.holders = 1, .store_pages = 4}), Verdict::kNotPlace);
}

TEST(PlacedAdmissionTest, WhoLeavesHoldsNothing) {
  const std::vector<StoreView> stores = {{NodeId("a"), 1}};
  const PlacedAdmission policy(NodeId("a"), {});
  AdmissionCandidate candidate{.leaving = 2, .store_pages = 4, .stores = stores};
  EXPECT_EQ(policy.Decide(candidate), Verdict::kTake);
  candidate.holders = 1;
  EXPECT_EQ(policy.Decide(candidate), Verdict::kTake);
  candidate.holders = 2;
  EXPECT_EQ(policy.Decide(candidate), Verdict::kEnough);
}

constexpr absl::Time kNow = absl::UnixEpoch();

TEST(WriteAdmissionTest, WritesAllWhileThereIsRoom) {
  WriteAdmission admission({});
  EXPECT_EQ(admission.Decide({.free_slot = true, .worth = 0}, kNow), WriteVerdict::kWrite);
  EXPECT_EQ(admission.Decide({.worth = 0, .victim_worth = 1}, kNow), WriteVerdict::kNotWorthIt);
}

TEST(WriteAdmissionTest, ReplacesWhatIsWorthLess) {
  WriteAdmission admission({.worth_ratio = 2});
  EXPECT_EQ(admission.Decide({.worth = 3, .victim_worth = 1}, kNow), WriteVerdict::kWrite);
  EXPECT_EQ(admission.Decide({.worth = 2, .victim_worth = 1}, kNow), WriteVerdict::kNotWorthIt);
  EXPECT_EQ(admission.Decide({.victim_worth = 1}, kNow), WriteVerdict::kWrite) << "unknown";
}

TEST(WriteAdmissionTest, KeepsToItsRate) {
  WriteAdmission admission({.bytes_a_second = 100, .burst = absl::Seconds(2)});
  int64_t written = 0;
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = kNow + absl::Milliseconds(10) * i;
    if (admission.Decide({.bytes = 7, .free_slot = true}, now) == WriteVerdict::kWrite) {
      written += 7;
    }
  }
  EXPECT_LE(written, 1000 + 200) << "ten seconds, and what was saved";
  EXPECT_GE(written, 1000 + 200 - 14);
}

TEST(WriteAdmissionTest, ABlockLargerThanTheBurstWaitsForAllOfIt) {
  WriteAdmission admission({.bytes_a_second = 100, .burst = absl::Seconds(1)});
  const WriteCandidate large{.bytes = 300, .free_slot = true};
  EXPECT_EQ(admission.Decide(large, kNow), WriteVerdict::kWrite);
  EXPECT_EQ(admission.Decide(large, kNow + absl::Seconds(2.9)), WriteVerdict::kTooFast);
  EXPECT_EQ(admission.Decide(large, kNow + absl::Seconds(3)), WriteVerdict::kWrite);
}

}  // namespace
}  // namespace tarn::kvstore
