#include "router/policy/fair_queue.h"

#include <gtest/gtest.h>

namespace tarn::router {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  RequestId Add(const std::string& tenant, int64_t tokens, int priority = 0) {
    const RequestId id(++last_);
    EXPECT_TRUE(
        queue_.Add({.id = id, .tenant = tenant, .priority = priority, .tokens = tokens}).ok());
    tenant_of_[id.value()] = tenant;
    return id;
  }
  std::string StartNext() {
    const RequestId id = queue_.Next().value();
    queue_.Start(id);
    return tenant_of_[id.value()];
  }
  // Tokens of each tenant among the next `count` that start.
  std::map<std::string, int> StartNext(int count) {
    std::map<std::string, int> starts;
    for (int i = 0; i < count; ++i) ++starts[StartNext()];
    return starts;
  }

  FairQueue queue_{
      {.max_requests = 1000, .max_requests_per_tenant = 900, .weights = {{"gold", 3}}}};
  uint64_t last_ = 0;
  std::map<uint64_t, std::string> tenant_of_;
};

TEST_F(FairQueueTest, OneTenantIsServedInOrder) {
  const RequestId first = Add("a", 1000);
  const RequestId second = Add("a", 1);
  EXPECT_EQ(queue_.Next(), first);
  queue_.Start(first);
  EXPECT_EQ(queue_.Next(), second);
  queue_.Start(second);
  EXPECT_EQ(queue_.Next(), std::nullopt);
  EXPECT_EQ(queue_.tokens(), 0);
}

TEST_F(FairQueueTest, OneWhoFloodsWaitsBehindHimself) {
  for (int i = 0; i < 500; ++i) Add("flood", 100);
  StartNext(10);
  Add("quiet", 100);
  Add("quiet", 100);
  // The quiet one's first goes at once, his second after one of the other's.
  EXPECT_EQ(StartNext(4)["quiet"], 2);
}

TEST_F(FairQueueTest, SharesFollowTokensAndNotRequests) {
  for (int i = 0; i < 100; ++i) Add("long", 1000);
  for (int i = 0; i < 800; ++i) Add("short", 100);
  const auto starts = StartNext(220);
  EXPECT_NEAR(starts.at("long"), 20, 1);
  EXPECT_NEAR(starts.at("short"), 200, 1);
}

TEST_F(FairQueueTest, SharesFollowWeights) {
  for (int i = 0; i < 300; ++i) {
    Add("gold", 100);
    Add("plain", 100);
  }
  EXPECT_NEAR(StartNext(200).at("gold"), 150, 1);
}

TEST_F(FairQueueTest, IdleTimeIsNotSavedUp) {
  for (int i = 0; i < 200; ++i) Add("busy", 100);
  StartNext(100);
  for (int i = 0; i < 200; ++i) Add("late", 100);
  EXPECT_NEAR(StartNext(100).at("busy"), 50, 1);
}

TEST_F(FairQueueTest, MoreUrgentOnesGoFirst) {
  Add("a", 10, 5);
  const RequestId urgent = Add("b", 10, -1);
  EXPECT_EQ(queue_.Next(), urgent);
  EXPECT_EQ(queue_.TokensAhead(-2), 0);
  EXPECT_EQ(queue_.TokensAhead(-1), 10);
  EXPECT_EQ(queue_.TokensAhead(5), 20);
}

TEST_F(FairQueueTest, WhatIsTakenOutHasCostNothing) {
  std::vector<RequestId> given_up;
  Add("b", 100);
  for (int i = 0; i < 100; ++i) given_up.push_back(Add("a", 1000));
  for (const RequestId id : given_up) queue_.Remove(id);
  queue_.Remove(RequestId(12345));
  Add("b", 100);
  const RequestId a = Add("a", 100);
  EXPECT_EQ(queue_.size(), 3);
  StartNext();
  EXPECT_EQ(queue_.Next(), a) << "as if it had never asked";
}

TEST_F(FairQueueTest, IsBounded) {
  for (int i = 0; i < 900; ++i) Add("a", 1);
  const absl::Status tenant = queue_.Add({.id = RequestId(5000), .tenant = "a"});
  EXPECT_TRUE(absl::IsResourceExhausted(tenant));
  for (int i = 0; i < 100; ++i) Add("b", 1);
  EXPECT_TRUE(absl::IsResourceExhausted(queue_.Add({.id = RequestId(5001), .tenant = "c"})));
  EXPECT_EQ(queue_.size(), 1000);
}

}  // namespace
}  // namespace tarn::router
