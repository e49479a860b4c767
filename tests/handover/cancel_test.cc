// A request may end at any moment: after each single task of the loop, in each of the ways in which
// requests end, nothing is left on either node, and the next request is served as if nothing had
// been.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "tests/handover/test_router.h"

namespace tarn::test {
namespace {

struct World {
  explicit World(absl::Duration timeout = absl::Seconds(60)) {
    // A prefix that the decode node generated: the second request fetches, pulls, and computes.
    request.prompt = RandomPrompt(90, 1);
    request.max_new_tokens = 40;
    const uint64_t id = router->Start(request);
    loop.RunUntilIdle();
    for (const TokenId token : router->answer(id).tokens) request.prompt.push_back(token);
    request.max_new_tokens = 6;
    request.timeout = timeout;
  }
  ~World() { router.reset(); }

  // Whether there was a k-th task.
  bool RunTasks(int count) {
    for (int i = 0; i < count; ++i) {
      if (router->answer(victim).ended() || !loop.RunOne()) return false;
    }
    return true;
  }

  void ExpectNothingLeft(int task) {
    SCOPED_TRACE("after task " + std::to_string(task));
    loop.RunUntilIdle();
    prefill.ExpectClean();
    decode.ExpectClean();
    EXPECT_TRUE(prefill.sessions->idle());
    EXPECT_TRUE(decode.sessions->idle());
  }

  void ExpectStillServing() {
    TestRouter fresh(&nodes, &prefill, &decode);
    const uint64_t id = fresh.Start(request);
    loop.RunUntilIdle();
    EXPECT_EQ(fresh.answer(id).tokens, DirectAnswer(request)) << fresh.answer(id).failed;
  }

  SimEventLoop loop;
  Nodes nodes{&loop};
  PrefillNode prefill{&nodes, "prefill-0", 64, 16, {.batching = {.chunk_tokens = 16}}};
  DecodeNode decode{&nodes, "decode-0", 64, 16, {}};
  std::unique_ptr<TestRouter> router = std::make_unique<TestRouter>(&nodes, &prefill, &decode);
  TestRequest request;
  uint64_t victim = 0;
};

// Runs the request up to each task in turn, lets `end` end it, and looks.
void EndAfterEachTask(const std::function<void(World&)>& end) {
  int task = 0;
  for (bool more = true; more; ++task) {
    World world;
    world.victim = world.router->Start(world.request);
    more = world.RunTasks(task);
    end(world);
    world.ExpectNothingLeft(task);
    if (task % 10 == 0) world.ExpectStillServing();
    ASSERT_LT(task, 500);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(task, 40);  // the states that this test is about were there
}

TEST(Cancel, ByTheRouter) {
  EndAfterEachTask([](World& world) { world.router->Cancel(world.victim); });
}

TEST(Cancel, ByTheEndOfTheStreams) {
  EndAfterEachTask([](World& world) {
    world.router->CloseStreams(absl::ResourceExhaustedError("slow reader"));
  });
}

TEST(Cancel, ByTheNodesShutdown) {
  EndAfterEachTask([](World& world) {
    world.prefill.sessions->FailAll(absl::UnavailableError("shutting down"));
    world.decode.sessions->FailAll(absl::UnavailableError("shutting down"));
  });
}

TEST(Cancel, ByDeadlinesOfAllLengths) {
  for (int timeout_us = 1; timeout_us < 40000; timeout_us = timeout_us * 5 / 4 + 1) {
    World world(absl::Microseconds(timeout_us));
    world.victim = world.router->Start(world.request);
    world.loop.RunUntilIdle();
    const TestAnswer& answer = world.router->answer(world.victim);
    ASSERT_TRUE(answer.ended());
    if (!answer.failed.ok()) {
      EXPECT_EQ(answer.failed.code(), absl::StatusCode::kDeadlineExceeded) << answer.failed;
    }
    world.ExpectNothingLeft(timeout_us);
  }
}

TEST(Cancel, PinsOfAHandoverThatNobodyReleasesExpire) {
  World world;
  world.router->never_release = true;
  world.request.handover_timeout = absl::Seconds(3);
  const absl::Time start = world.loop.Now();
  const uint64_t id = world.router->Start(world.request);
  world.loop.RunUntil([&] { return world.router->answer(id).ended(); });
  EXPECT_GT(world.prefill.pool->Stats().hbm_held, 0);
  world.ExpectNothingLeft(0);
  EXPECT_GE(world.loop.Now() - start, absl::Seconds(3));
  EXPECT_EQ(world.prefill.metrics.handovers_expired.Value(), 1u);
}

}  // namespace
}  // namespace tarn::test
