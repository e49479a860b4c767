// What every EventLoop does, run over the real and the simulated one.

#include "common/runtime/event_loop.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/runtime/sim/sim_event_loop.h"

namespace tarn {
namespace {

// Set on the loop; waited for by the test.
class Flag {
 public:
  void Set() {
    MutexLock lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool IsSet() {
    MutexLock lock(mutex_);
    return set_;
  }
  bool Wait(std::chrono::seconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    MutexLock lock(mutex_);
    while (!set_) {
      if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) return set_;
    }
    return true;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
};

struct RealLoop {
  RealEventLoop loop{"test-loop"};
  bool RunUntil(Flag& flag) { return flag.Wait(std::chrono::seconds(20)); }
};

struct SimLoop {
  SimEventLoop loop;
  bool RunUntil(Flag& flag) {
    return loop.RunUntil([&] { return flag.IsSet(); });
  }
};

template <typename Driver>
class EventLoopTest : public testing::Test {
 protected:
  // Runs `task` on the loop and waits for `flag`, which it or what it posts sets.
  void RunOnLoop(EventLoop::Task task, Flag& flag) {
    loop().Post(std::move(task));
    ASSERT_TRUE(driver_.RunUntil(flag));
  }
  EventLoop& loop() { return driver_.loop; }

  Driver driver_;
};

using Drivers = testing::Types<RealLoop, SimLoop>;
TYPED_TEST_SUITE(EventLoopTest, Drivers);

TYPED_TEST(EventLoopTest, PostedTasksRunInOrder) {
  std::vector<int> order;
  Flag done;
  for (int i = 0; i < 1'000; ++i) this->loop().Post([&order, i] { order.push_back(i); });
  this->RunOnLoop([&] { done.Set(); }, done);
  ASSERT_EQ(order.size(), 1'000u);
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(order[i], i);
}

TYPED_TEST(EventLoopTest, ATaskPostedOnTheLoopRunsLater) {
  std::vector<int> order;
  Flag done;
  this->RunOnLoop(
      [&] {
        this->loop().Post([&] {
          order.push_back(2);
          done.Set();
        });
        order.push_back(1);
      },
      done);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TYPED_TEST(EventLoopTest, TimersRunInOrderOfTimeThenPosting) {
  std::vector<int> order;
  Flag done;
  this->RunOnLoop(
      [&] {
        const absl::Time soon = this->loop().Now() + absl::Milliseconds(20);
        this->loop().PostAt(soon + absl::Milliseconds(1), [&] {
          order.push_back(3);
          done.Set();
        });
        this->loop().PostAt(soon, [&] { order.push_back(1); });
        this->loop().PostAt(soon, [&] { order.push_back(2); });
        this->loop().Post([&] { order.push_back(0); });
      },
      done);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TYPED_TEST(EventLoopTest, TimersRunNotBeforeTheirTime) {
  absl::Time ran;
  absl::Time due;
  Flag done;
  this->RunOnLoop(
      [&] {
        due = this->loop().Now() + absl::Milliseconds(5);
        this->loop().PostAt(due, [&] {
          ran = this->loop().Now();
          done.Set();
        });
      },
      done);
  EXPECT_GE(ran, due);
}

TYPED_TEST(EventLoopTest, APastTimerDoesNotOvertakeEarlierPosts) {
  std::vector<int> order;
  Flag done;
  this->RunOnLoop(
      [&] {
        this->loop().Post([&] { order.push_back(1); });
        this->loop().PostAt(absl::InfinitePast(), [&] { order.push_back(2); });
        this->loop().Post([&] {
          order.push_back(3);
          done.Set();
        });
      },
      done);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TYPED_TEST(EventLoopTest, ACancelledTimerDoesNotRunAndIsDestroyed) {
  auto owned = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = owned;
  bool destroyed = false;
  bool ran = false;
  Flag done;
  this->RunOnLoop(
      [&] {
        const TimerId timer = this->loop().PostAfter(
            absl::Milliseconds(1), [&ran, owned = std::move(owned)] { ran = true; });
        this->loop().CancelTimer(timer);
        destroyed = watch.expired();
        this->loop().PostAfter(absl::Milliseconds(2), [&] { done.Set(); });
      },
      done);
  EXPECT_FALSE(ran);
  EXPECT_TRUE(destroyed);
}

// Both timers are due at once, so a loop that works in batches has taken the second already.
TYPED_TEST(EventLoopTest, ATimerCancelledOnTheLoopNeverRunsEvenWhenDue) {
  bool ran = false;
  TimerId second = 0;
  Flag done;
  this->RunOnLoop(
      [&] {
        const absl::Time now = this->loop().Now();
        this->loop().PostAt(now, [&] { this->loop().CancelTimer(second); });
        second = this->loop().PostAt(now, [&] { ran = true; });
        this->loop().PostAfter(absl::Milliseconds(1), [&] { done.Set(); });
      },
      done);
  EXPECT_FALSE(ran);
}

TYPED_TEST(EventLoopTest, CancellingNothingOrWhatHasRunIsHarmless) {
  int ran = 0;
  Flag done;
  this->RunOnLoop(
      [&] {
        this->loop().CancelTimer(0);
        const TimerId timer = this->loop().PostAt(this->loop().Now(), [&] { ++ran; });
        this->loop().PostAfter(absl::Milliseconds(1), [&, timer] {
          this->loop().CancelTimer(timer);
          this->loop().Post([&] {
            ++ran;
            done.Set();
          });
        });
      },
      done);
  EXPECT_EQ(ran, 2);
}

TYPED_TEST(EventLoopTest, OnLoopTellsTheLoopFromOtherThreads) {
  bool inside = false;
  Flag done;
  this->RunOnLoop(
      [&] {
        inside = this->loop().OnLoop();
        done.Set();
      },
      done);
  EXPECT_TRUE(inside);
  bool outside = true;
  std::thread([&] { outside = this->loop().OnLoop(); }).join();
  EXPECT_FALSE(outside);
}

TYPED_TEST(EventLoopTest, NowNeverGoesBackwards) {
  absl::Time last = this->loop().Now();
  for (int i = 0; i < 10'000; ++i) {
    const absl::Time now = this->loop().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TYPED_TEST(EventLoopTest, ThreadsPostAtTheSameTimeAndEachKeepsItsOrder) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 2'000;
  std::vector<std::vector<int>> seen(kThreads);
  int count = 0;
  Flag done;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        this->loop().Post([&, t, i] {
          seen[t].push_back(i);
          if (++count == kThreads * kTasks) done.Set();
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(this->driver_.RunUntil(done));
  for (const auto& order : seen) {
    for (int i = 0; i < kTasks; ++i) ASSERT_EQ(order[i], i);
  }
}

TEST(RealEventLoop, StopDestroysWhatHasNotRun) {
  RealEventLoop loop("test-loop");
  auto owned = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = owned;
  loop.PostAfter(absl::Hours(1), [owned = std::move(owned)] { FAIL(); });
  loop.Stop();
  EXPECT_TRUE(watch.expired());
}

TEST(RealEventLoop, WhatIsPostedAfterStopIsDestroyedUnrun) {
  RealEventLoop loop("test-loop");
  loop.Stop();
  auto owned = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = owned;
  loop.Post([owned = std::move(owned)] { FAIL(); });
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(loop.PostAfter(absl::ZeroDuration(), [] { FAIL(); }), 0u);
}

// What a dying task owned may post again; that must not deadlock.
TEST(RealEventLoop, ATaskMayPostFromItsDestructor) {
  RealEventLoop loop("test-loop");
  struct PostsAtDeath {
    EventLoop& loop;
    ~PostsAtDeath() {
      loop.Post([] { FAIL(); });
    }
  };
  auto owned = std::shared_ptr<PostsAtDeath>(new PostsAtDeath{loop});
  loop.PostAfter(absl::Hours(1), [owned = std::move(owned)] { FAIL(); });
  loop.Stop();
}

TEST(RealEventLoop, AnEarlierTimerWakesASleepingLoop) {
  RealEventLoop loop("test-loop");
  loop.PostAfter(absl::Hours(1), [] { FAIL(); });
  loop.PostAt(absl::InfiniteFuture(), [] { FAIL(); });
  Flag done;
  loop.PostAfter(absl::Milliseconds(1), [&] { done.Set(); });
  EXPECT_TRUE(done.Wait(std::chrono::seconds(20)));
}

}  // namespace
}  // namespace tarn
