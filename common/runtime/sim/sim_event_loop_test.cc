#include "common/runtime/sim/sim_event_loop.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn {
namespace {

TEST(SimEventLoop, TimeJumpsToTheTaskAndStandsStillInIt) {
  SimEventLoop loop(absl::UnixEpoch());
  std::vector<absl::Time> times;
  loop.PostAfter(absl::Hours(5), [&] { times.push_back(loop.Now()); });
  loop.PostAfter(absl::Seconds(1), [&] { times.push_back(loop.Now()); });
  EXPECT_EQ(loop.RunUntilIdle(), 2u);
  EXPECT_EQ(times, (std::vector<absl::Time>{absl::UnixEpoch() + absl::Seconds(1),
                                            absl::UnixEpoch() + absl::Hours(5)}));
}

TEST(SimEventLoop, RunForLeavesLaterTasksAndEndsOnTime) {
  SimEventLoop loop(absl::UnixEpoch());
  int ran = 0;
  loop.PostAfter(absl::Seconds(1), [&] { ++ran; });
  loop.PostAfter(absl::Seconds(2), [&] { ++ran; });
  loop.PostAfter(absl::Seconds(3), [&] { ++ran; });
  loop.RunFor(absl::Seconds(2));
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(loop.Now(), absl::UnixEpoch() + absl::Seconds(2));
}

TEST(SimEventLoop, RunUntilAPredicateStopsAtOnceOrAtItsLimit) {
  SimEventLoop loop(absl::UnixEpoch());
  int ticks = 0;
  std::function<void()> tick = [&] {
    ++ticks;
    loop.PostAfter(absl::Seconds(1), tick);
  };
  loop.Post(tick);
  EXPECT_TRUE(loop.RunUntil([&] { return ticks == 3; }));
  EXPECT_EQ(loop.Now(), absl::UnixEpoch() + absl::Seconds(2));
  EXPECT_FALSE(loop.RunUntil([&] { return ticks == 1'000; }, absl::Seconds(10)));
  EXPECT_EQ(ticks, 13);
}

TEST(SimEventLoop, RunUntilAPredicateEndsWhenNothingIsLeft) {
  SimEventLoop loop;
  EXPECT_FALSE(loop.RunUntil([] { return false; }));
}

TEST(SimEventLoop, TasksOvertakenBySetNowRunLateInOrder) {
  SimEventLoop loop(absl::UnixEpoch());
  std::vector<int> order;
  loop.PostAfter(absl::Seconds(2), [&] { order.push_back(2); });
  loop.PostAfter(absl::Seconds(1), [&] { order.push_back(1); });
  const absl::Time late = absl::UnixEpoch() + absl::Minutes(1);
  loop.SetNow(late);
  loop.Post([&] { order.push_back(3); });
  loop.RunUntilIdle();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(loop.Now(), late);
}

TEST(SimEventLoop, InfiniteFutureNeverComes) {
  SimEventLoop loop;
  bool ran = false;
  loop.PostAt(absl::InfiniteFuture(), [&] { ran = true; });
  EXPECT_EQ(loop.RunUntilIdle(), 0u);
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace tarn
