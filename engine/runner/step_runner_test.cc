#include "engine/runner/step_runner.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "common/runtime/real/real_event_loop.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "engine/fake/fake_executor.h"

namespace tarn::engine {
namespace {

constexpr std::chrono::seconds kLimit(20);

// An arena, a fake executor over it, and a prompt of one block and a half.
class StepRunnerTest : public testing::Test {
 protected:
  StepRunnerTest() {
    options_.layout = {.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = 16};
    arena_.resize(kPages * options_.layout.page_bytes() / sizeof(uint64_t));
    for (int i = 0; i < 24; ++i) tokens_.push_back(i);
  }

  std::span<std::byte> Page(int page) {
    const size_t bytes = options_.layout.page_bytes();
    return std::as_writable_bytes(std::span(arena_)).subspan(page * bytes, bytes);
  }

  std::unique_ptr<FakeExecutor> MakeExecutor() {
    auto executor = FakeExecutor::Create(options_, {Page(0).data(), kPages});
    EXPECT_TRUE(executor.ok()) << executor.status();
    return std::move(*executor);
  }

  StepJob PromptJob() {
    StepJob job;
    job.sequences.push_back({.tokens = tokens_, .position = 0, .pages = pages_});
    job.sequences[0].sample = SampleRequest{&sampling_, tokens_, 24};
    job.seals.push_back({identity_, Page(pages_[0])});
    return job;
  }

  static constexpr int kPages = 4;
  FakeOptions options_;
  std::vector<uint64_t> arena_;
  std::vector<TokenId> tokens_;
  const std::vector<PageIndex> pages_{2, 0};
  const SamplingParams sampling_;
  const BlockIdentity identity_{.key = ChildKey(BlockKey(), {}), .epoch = 4, .token_count = 16};
};

TEST_F(StepRunnerTest, ThreadComputesSealsAndAnswersOnTheLoop) {
  const auto executor = MakeExecutor();
  RealEventLoop loop("test-loop");
  const auto runner = MakeThreadStepRunner(executor.get(), &loop);
  std::promise<StepResult> result;
  bool busy_at_once = false, busy_in_done = true, on_loop = false;
  loop.Post([&] {
    runner->Submit(PromptJob(), [&](StepResult step) {
      busy_in_done = runner->busy();
      on_loop = loop.OnLoop();
      result.set_value(std::move(step));
    });
    busy_at_once = runner->busy();
  });
  auto future = result.get_future();
  ASSERT_EQ(future.wait_for(kLimit), std::future_status::ready);
  const StepResult step = future.get();
  ASSERT_TRUE(step.outputs.ok()) << step.outputs.status();
  EXPECT_TRUE((*step.outputs)[0].sampled.has_value());
  EXPECT_TRUE(busy_at_once);
  EXPECT_FALSE(busy_in_done);
  EXPECT_TRUE(on_loop);
  EXPECT_TRUE(VerifyBlock(options_.layout, identity_, Page(2)).ok());
  runner->Stop();
  loop.Stop();
}

TEST_F(StepRunnerTest, BothRunnersGiveTheSameToken) {
  const auto executor = MakeExecutor();
  SimEventLoop sim;
  const auto runner =
      MakeInlineStepRunner(executor.get(), &sim, [](int tokens) { return absl::Seconds(tokens); });
  StepResult inline_step;
  runner->Submit(PromptJob(), [&](StepResult step) { inline_step = std::move(step); });
  EXPECT_TRUE(runner->busy());
  sim.RunUntilIdle();
  EXPECT_FALSE(runner->busy());
  EXPECT_EQ(inline_step.elapsed, absl::Seconds(24));
  const auto direct = executor->Step(PromptJob().sequences);
  ASSERT_TRUE(inline_step.outputs.ok() && direct.ok());
  EXPECT_EQ((*inline_step.outputs)[0].sampled, (*direct)[0].sampled);
}

TEST_F(StepRunnerTest, FailureIsAStatusAndSealsNothing) {
  const auto executor = MakeExecutor();
  SimEventLoop sim;
  const auto runner =
      MakeInlineStepRunner(executor.get(), &sim, [](int) { return absl::Seconds(1); });
  tokens_[0] = -1;
  absl::Status status;
  runner->Submit(PromptJob(), [&](StepResult step) { status = step.outputs.status(); });
  sim.RunUntilIdle();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_FALSE(VerifyBlock(options_.layout, identity_, Page(2)).ok());
}

TEST_F(StepRunnerTest, StopWaitsForTheStepAndSilencesIt) {
  std::promise<void> entered, release;
  options_.wait = [&](absl::Duration) {
    entered.set_value();
    release.get_future().wait();
  };
  const auto executor = MakeExecutor();
  SimEventLoop sim;
  const auto runner = MakeThreadStepRunner(executor.get(), &sim);
  bool ran = false;
  runner->Submit(PromptJob(), [&](StepResult) { ran = true; });
  ASSERT_EQ(entered.get_future().wait_for(kLimit), std::future_status::ready);
  std::thread stopper([&] { runner->Stop(); });
  release.set_value();
  stopper.join();
  EXPECT_TRUE(VerifyBlock(options_.layout, identity_, Page(2)).ok());
  sim.RunUntilIdle();
  EXPECT_FALSE(ran);
}

TEST_F(StepRunnerTest, InlineStopForgetsTheStep) {
  const auto executor = MakeExecutor();
  SimEventLoop sim;
  const auto runner =
      MakeInlineStepRunner(executor.get(), &sim, [](int) { return absl::Seconds(1); });
  bool ran = false;
  runner->Submit(PromptJob(), [&](StepResult) { ran = true; });
  runner->Stop();
  sim.RunUntilIdle();
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace tarn::engine
