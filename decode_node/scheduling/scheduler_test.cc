#include "decode_node/scheduling/scheduler.h"

#include <gtest/gtest.h>

#include <string>

namespace tarn::decode {
namespace {

constexpr TokenId kEnd = 9;
constexpr TokenId kWord = 1;
const absl::Time kStart = absl::FromUnixSeconds(1000);

SequenceLimits Limits(int tokens, int max_new_tokens = 100) {
  return {.tokens = tokens,
          .max_new_tokens = max_new_tokens,
          .end_tokens = {3, kEnd},
          .deadline = kStart + absl::Seconds(10)};
}

// A sequence of `tokens` that runs with nothing but its first new token to compute.
SequenceId Running(Scheduler& scheduler, int tokens, int max_new_tokens = 100) {
  const SequenceId id = *scheduler.Add(Limits(tokens, max_new_tokens));
  EXPECT_EQ(scheduler.Start(id, kWord), std::nullopt);
  scheduler.Join(id, {{tokens, tokens + 1}});
  return id;
}

TEST(Scheduler, EachRunningSequenceGetsOneTokenAStep) {
  Scheduler scheduler({});
  const SequenceId a = Running(scheduler, 10);
  const SequenceId b = Running(scheduler, 20);
  EXPECT_EQ(scheduler.PlanStep(),
            (std::vector<StepItem>{{a, {10, 11}, true}, {b, {20, 21}, true}}));
  scheduler.OnStepDone(absl::Milliseconds(1));
  EXPECT_EQ(scheduler.OnSampled(a, kWord), std::nullopt);
  EXPECT_EQ(scheduler.OnSampled(b, kWord), std::nullopt);
  EXPECT_EQ(scheduler.PlanStep(),
            (std::vector<StepItem>{{a, {11, 12}, true}, {b, {21, 22}, true}}));
}

TEST(Scheduler, JoinsAtTheNextStepOnly) {
  Scheduler scheduler({});
  const SequenceId a = Running(scheduler, 10);
  scheduler.PlanStep();
  const SequenceId b = Running(scheduler, 20);
  scheduler.OnStepDone(absl::Milliseconds(1));
  scheduler.OnSampled(a, kWord);
  EXPECT_EQ(scheduler.PlanStep(),
            (std::vector<StepItem>{{a, {11, 12}, true}, {b, {20, 21}, true}}));
}

TEST(Scheduler, SkippedStepsAreAsIfTheyHadBeenRun) {
  Scheduler one({}), other({});
  for (Scheduler* scheduler : {&one, &other}) {
    Running(*scheduler, 10, 8);
    Running(*scheduler, 20, 5);
    (void)*scheduler->Add(Limits(3));  // seated only
  }
  // The second of them ends with its fourth step: three are alike.
  EXPECT_EQ(one.AlikeSteps(), 3);
  const std::vector<absl::Duration> elapsed = {absl::Milliseconds(5), absl::Milliseconds(7),
                                               absl::Milliseconds(6)};
  EXPECT_EQ(one.ReportAfter({elapsed.data(), 1}).step_us, 5000);
  one.SkipSteps(elapsed);
  for (const absl::Duration step : elapsed) {
    const std::vector<StepItem> items = other.PlanStep();
    other.OnStepDone(step);
    for (const StepItem& item : items) {
      EXPECT_EQ(other.OnSampled(item.sequence, kWord), std::nullopt);
    }
  }
  EXPECT_EQ(one.AlikeSteps(), 0);
  EXPECT_EQ(one.load().step_us, other.load().step_us);
  EXPECT_EQ(one.PlanStep(), other.PlanStep());
}

TEST(Scheduler, StepsWithCatchingUpAreNotAlike) {
  Scheduler scheduler({});
  EXPECT_EQ(scheduler.AlikeSteps(), 0);
  const SequenceId behind = *scheduler.Add(Limits(40));
  scheduler.Start(behind, kWord);
  scheduler.Join(behind, {{30, 41}});
  EXPECT_EQ(scheduler.AlikeSteps(), 0);
}

TEST(Scheduler, SeatedSequencesWaitForStartAndJoin) {
  Scheduler scheduler({});
  const SequenceId id = *scheduler.Add(Limits(10));
  EXPECT_TRUE(scheduler.PlanStep().empty());
  scheduler.Start(id, kWord);
  EXPECT_TRUE(scheduler.PlanStep().empty());
  scheduler.Join(id, {{10, 11}});
  EXPECT_EQ(scheduler.PlanStep().size(), 1u);
}

TEST(Scheduler, CatchingUpIsChunkedBesideTheOthers) {
  Scheduler scheduler({.catch_up_tokens = 16});
  const SequenceId runs = Running(scheduler, 5);
  const SequenceId behind = *scheduler.Add(Limits(40));
  scheduler.Start(behind, kWord);
  scheduler.Join(behind, {{0, 20}, {32, 41}});
  const std::vector<TokenRange> expected = {{0, 16}, {16, 20}, {32, 41}};
  int length = 5;
  for (const TokenRange& range : expected) {
    const bool last = range.end == 41;
    ++length;
    EXPECT_EQ(scheduler.PlanStep(),
              (std::vector<StepItem>{{runs, {length - 1, length}, true}, {behind, range, last}}));
    scheduler.OnStepDone(absl::Milliseconds(1));
    scheduler.OnSampled(runs, kWord);
    if (last) scheduler.OnSampled(behind, kWord);
  }
  EXPECT_EQ(scheduler.PlanStep(),
            (std::vector<StepItem>{{runs, {length, length + 1}, true}, {behind, {41, 42}, true}}));
}

TEST(Scheduler, TheBudgetIsSharedByAllThatAreBehind) {
  Scheduler scheduler({.catch_up_tokens = 16});
  std::vector<SequenceId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(*scheduler.Add(Limits(9)));
    scheduler.Start(ids.back(), kWord);
    scheduler.Join(ids.back(), {{0, 10}});
  }
  EXPECT_EQ(scheduler.PlanStep(),
            (std::vector<StepItem>{{ids[0], {0, 10}, true}, {ids[1], {0, 6}, false}}));
}

TEST(Scheduler, EndTokenStops) {
  Scheduler scheduler({});
  const SequenceId id = Running(scheduler, 10);
  scheduler.PlanStep();
  scheduler.OnStepDone(absl::Milliseconds(1));
  EXPECT_EQ(scheduler.OnSampled(id, kEnd), FinishReason::kStop);
  EXPECT_EQ(scheduler.load().seated, 0);
  EXPECT_EQ(scheduler.NextDeadline(), absl::InfiniteFuture());
}

TEST(Scheduler, LengthCountsTheFirstToken) {
  Scheduler scheduler({});
  const SequenceId id = Running(scheduler, 10, 3);
  scheduler.PlanStep();
  scheduler.OnStepDone(absl::Milliseconds(1));
  EXPECT_EQ(scheduler.OnSampled(id, kWord), std::nullopt);
  scheduler.PlanStep();
  scheduler.OnStepDone(absl::Milliseconds(1));
  EXPECT_EQ(scheduler.OnSampled(id, kWord), FinishReason::kLength);
}

TEST(Scheduler, EndTokenWinsOverLength) {
  Scheduler scheduler({});
  const SequenceId id = *scheduler.Add(Limits(10, 1));
  EXPECT_EQ(scheduler.Start(id, kEnd), FinishReason::kStop);
}

TEST(Scheduler, FirstTokenMayBeTheLast) {
  Scheduler scheduler({});
  EXPECT_EQ(scheduler.Start(*scheduler.Add(Limits(10, 1)), kWord), FinishReason::kLength);
  EXPECT_EQ(scheduler.Start(*scheduler.Add(Limits(10, 5)), kEnd), FinishReason::kStop);
  EXPECT_EQ(scheduler.load().seated, 0);
}

TEST(Scheduler, NoSeatRefusesWithAHintFromTheMeasuredRate) {
  Scheduler scheduler({.max_batch = 2});
  const SequenceId a = Running(scheduler, 10, 51);
  Running(scheduler, 10, 100);
  const absl::Status full = scheduler.Add(Limits(1)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(full.ToString().find("all 2"), std::string::npos) << full;
  scheduler.PlanStep();
  scheduler.OnStepDone(absl::Milliseconds(20));
  EXPECT_EQ(scheduler.RetryHint(), absl::Seconds(1));  // 50 steps of 20 ms
  scheduler.Remove(a);
  EXPECT_TRUE(scheduler.Add(Limits(1)).ok());
}

TEST(Scheduler, DeadlinesEndEachState) {
  Scheduler scheduler({});
  const SequenceId seated = *scheduler.Add(Limits(10));
  const SequenceId running = Running(scheduler, 10);
  scheduler.PlanStep();
  EXPECT_TRUE(scheduler.TakeExpired(kStart + absl::Seconds(9)).empty());
  EXPECT_EQ(scheduler.TakeExpired(kStart + absl::Seconds(10)),
            (std::vector<SequenceId>{seated, running}));
  scheduler.OnStepDone(absl::Milliseconds(1));
  EXPECT_TRUE(scheduler.PlanStep().empty());
  EXPECT_EQ(scheduler.load().running, 0);
}

TEST(Scheduler, RemovedInAnyStateLeavesNothing) {
  for (int state = 0; state < 5; ++state) {
    Scheduler scheduler({.catch_up_tokens = 8});
    const SequenceId id = *scheduler.Add(Limits(10));
    if (state >= 1) scheduler.Start(id, kWord);
    if (state >= 2) scheduler.Join(id, {{0, 11}});
    if (state >= 3) scheduler.PlanStep();
    if (state >= 4) {
      scheduler.OnStepDone(absl::Milliseconds(1));
      scheduler.PlanStep();
    }
    scheduler.Remove(id);
    if (state >= 3) scheduler.OnStepDone(absl::Milliseconds(1));
    EXPECT_EQ(scheduler.load().seated, 0) << state;
    EXPECT_EQ(scheduler.load().running, 0) << state;
    EXPECT_EQ(scheduler.NextDeadline(), absl::InfiniteFuture()) << state;
    EXPECT_TRUE(scheduler.PlanStep().empty()) << state;
  }
}

TEST(Scheduler, FailedStepCanBeFollowedByAnother) {
  Scheduler scheduler({});
  const SequenceId a = Running(scheduler, 10);
  const SequenceId b = Running(scheduler, 20);
  scheduler.PlanStep();
  scheduler.OnStepFailed();
  scheduler.Remove(a);
  EXPECT_EQ(scheduler.PlanStep(), (std::vector<StepItem>{{b, {20, 21}, true}}));
}

}  // namespace
}  // namespace tarn::decode
