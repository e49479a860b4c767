#include "prefill_node/batching/batcher.h"

#include <gtest/gtest.h>

#include <string>

namespace tarn::prefill {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

JobSpec Spec(int tokens, int priority = 0) {
  return {.tokens = tokens,
          .priority = priority,
          .deadline = kStart + absl::Seconds(10),
          .handover_timeout = absl::Seconds(5)};
}

// Adds a job and takes it to computing, with all its tokens missing.
JobId Computing(Batcher& batcher, int tokens, int priority = 0) {
  const JobId id = *batcher.Add(Spec(tokens, priority));
  batcher.OnReserved(id);
  batcher.OnFetched(id, {{0, tokens}});
  return id;
}

TEST(Batcher, PagesAreAskedForByPriorityThenArrival) {
  Batcher batcher({});
  const JobId first = *batcher.Add(Spec(10, 1));
  const JobId second = *batcher.Add(Spec(10, 1));
  const JobId urgent = *batcher.Add(Spec(10, 0));
  for (const JobId expected : {urgent, first, second}) {
    ASSERT_EQ(batcher.NextToReserve(), expected);
    batcher.OnReserved(expected);
  }
  EXPECT_EQ(batcher.NextToReserve(), std::nullopt);
}

TEST(Batcher, WhoeverWaitsForPagesIsNotOvertaken) {
  Batcher batcher({});
  const JobId large = *batcher.Add(Spec(100000));
  batcher.Add(Spec(1)).value();
  EXPECT_EQ(batcher.NextToReserve(), large);
  EXPECT_EQ(batcher.NextToReserve(), large);
}

TEST(Batcher, RunningIsBounded) {
  Batcher batcher({.max_running = 2});
  batcher.OnReserved(*batcher.Add(Spec(10)));
  const JobId second = Computing(batcher, 10);
  batcher.Add(Spec(10)).value();
  EXPECT_EQ(batcher.NextToReserve(), std::nullopt);
  batcher.Remove(second);
  EXPECT_NE(batcher.NextToReserve(), std::nullopt);
}

TEST(Batcher, LongPromptIsCutAndTheRestOfTheStepIsFilled) {
  Batcher batcher({.chunk_tokens = 64});
  const JobId a = Computing(batcher, 100);
  const JobId b = Computing(batcher, 20);
  const JobId c = Computing(batcher, 30);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{a, {0, 64}, false}}));
  batcher.OnStepDone(absl::Milliseconds(64), kStart);
  EXPECT_EQ(batcher.PlanStep(),
            (std::vector<Chunk>{{a, {64, 100}, true}, {b, {0, 20}, true}, {c, {0, 8}, false}}));
  batcher.OnStepDone(absl::Milliseconds(64), kStart);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{c, {8, 30}, true}}));
  batcher.OnStepDone(absl::Milliseconds(22), kStart);
  EXPECT_TRUE(batcher.PlanStep().empty());
  EXPECT_EQ(batcher.load().handing_over, 3);
}

TEST(Batcher, HolesAreComputedOneAStep) {
  Batcher batcher({.chunk_tokens = 64});
  const JobId id = *batcher.Add(Spec(100));
  batcher.OnReserved(id);
  batcher.OnFetched(id, {{16, 32}, {96, 100}});
  EXPECT_EQ(batcher.load().waiting_tokens, 20);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{id, {16, 32}, false}}));
  batcher.OnStepDone(absl::Milliseconds(1), kStart);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{id, {96, 100}, true}}));
}

TEST(Batcher, UrgentPromptGoesFirstInTheNextStep) {
  Batcher batcher({.chunk_tokens = 10});
  const JobId slow = Computing(batcher, 30, 5);
  batcher.PlanStep();
  const JobId urgent = Computing(batcher, 10, -5);
  batcher.OnStepDone(absl::Milliseconds(1), kStart);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{urgent, {0, 10}, true}}));
  batcher.OnStepDone(absl::Milliseconds(1), kStart);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{slow, {10, 20}, false}}));
}

TEST(Batcher, FullQueueRefusesWithAHintFromTheMeasuredRate) {
  Batcher batcher({.chunk_tokens = 1000, .max_running = 1, .max_waiting = 2});
  const JobId running = Computing(batcher, 1000);
  batcher.Add(Spec(1000)).value();
  batcher.Add(Spec(1000)).value();
  const absl::Status full = batcher.Add(Spec(1)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(full.ToString().find("2 of 2"), std::string::npos) << full;
  EXPECT_GT(batcher.RetryHint(), absl::ZeroDuration());
  batcher.PlanStep();
  batcher.OnStepDone(absl::Milliseconds(2000), kStart);  // 2 ms a token
  EXPECT_DOUBLE_EQ(batcher.load().us_per_token, 2000);
  batcher.Remove(running);
  EXPECT_EQ(batcher.RetryHint(), absl::Seconds(2));  // one prompt of 1000 tokens
}

TEST(Batcher, DeadlinesEndEachState) {
  Batcher batcher({});
  const JobId waiting = *batcher.Add(Spec(10));
  EXPECT_EQ(batcher.NextDeadline(), kStart + absl::Seconds(10));
  EXPECT_TRUE(batcher.TakeExpired(kStart + absl::Seconds(9)).empty());
  const JobId done = Computing(batcher, 10);
  batcher.PlanStep();
  batcher.OnStepDone(absl::Milliseconds(1), kStart + absl::Seconds(8));
  auto expired = batcher.TakeExpired(kStart + absl::Seconds(10));
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0].job, waiting);
  EXPECT_EQ(expired[0].state, JobState::kWaiting);
  // The one that finished has until the hand-over's end.
  EXPECT_EQ(batcher.NextDeadline(), kStart + absl::Seconds(13));
  expired = batcher.TakeExpired(kStart + absl::Seconds(13));
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0].job, done);
  EXPECT_EQ(expired[0].state, JobState::kHandingOver);
  EXPECT_EQ(batcher.NextDeadline(), absl::InfiniteFuture());
}

TEST(Batcher, RemovedInAnyStateLeavesNothing) {
  for (int state = 0; state < 5; ++state) {
    Batcher batcher({.chunk_tokens = 10});
    const JobId id = *batcher.Add(Spec(15));
    if (state >= 1) batcher.OnReserved(id);
    if (state >= 2) batcher.OnFetched(id, {{0, 15}});
    if (state >= 3) batcher.PlanStep();
    if (state >= 4) {
      batcher.OnStepDone(absl::Milliseconds(1), kStart);
      batcher.PlanStep();
    }
    batcher.Remove(id);
    if (state >= 3) batcher.OnStepDone(absl::Milliseconds(1), kStart);
    const BatcherLoad load = batcher.load();
    EXPECT_EQ(load.waiting + load.running + load.handing_over, 0) << state;
    EXPECT_EQ(load.waiting_tokens, 0) << state;
    EXPECT_EQ(batcher.NextDeadline(), absl::InfiniteFuture()) << state;
    EXPECT_TRUE(batcher.PlanStep().empty()) << state;
  }
}

TEST(Batcher, FailedStepCanBeFollowedByAnother) {
  Batcher batcher({.chunk_tokens = 10});
  const JobId failed = Computing(batcher, 10);
  const JobId other = Computing(batcher, 10);
  batcher.PlanStep();
  batcher.OnStepFailed();
  batcher.Remove(failed);
  EXPECT_EQ(batcher.PlanStep(), (std::vector<Chunk>{{other, {0, 10}, true}}));
}

}  // namespace
}  // namespace tarn::prefill
