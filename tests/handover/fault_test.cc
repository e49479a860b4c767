// Losing KV costs time, never correctness: corrupt blocks, lost nodes, failed steps, bad requests.

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "engine/wire/convert.h"
#include "tests/handover/test_router.h"

namespace tarn::test {
namespace {

class FaultTest : public testing::Test {
 protected:
  const TestAnswer& Run(const TestRequest& request) {
    const uint64_t id = router_->Start(request);
    loop_.RunUntilIdle();
    return router_->answer(id);
  }

  void TearDown() override {
    loop_.RunUntilIdle();
    if (prefill_->sessions != nullptr) prefill_->ExpectClean();
    decode_->ExpectClean();
    EXPECT_TRUE(decode_->sessions->idle());
    router_.reset();
  }

  SimEventLoop loop_;
  Nodes nodes_{&loop_};
  std::unique_ptr<PrefillNode> prefill_ = std::make_unique<PrefillNode>(
      &nodes_, "prefill-0", 128, 0, prefill::PrefillOptions{.batching = {.chunk_tokens = 32}});
  std::unique_ptr<DecodeNode> decode_ =
      std::make_unique<DecodeNode>(&nodes_, "decode-0", 128, 0, decode::DecodeOptions{});
  std::unique_ptr<TestRouter> router_ =
      std::make_unique<TestRouter>(&nodes_, prefill_.get(), decode_.get());
};

TEST_F(FaultTest, CorruptBlocksAreComputedAgain) {
  const TestRequest request{.prompt = RandomPrompt(90, 1)};
  for (int corrupt = 0; corrupt < 6; ++corrupt) {
    TestRequest salted = request;
    salted.salt = std::to_string(corrupt);
    router_->relay_after_done = true;
    router_->on_relay = [&](v1::BlocksReady& ready) {
      for (int i = 0; i < ready.blocks_size(); ++i) {
        if (static_cast<int>(ready.first_block()) + i != corrupt) continue;
        prefill_->Page(ready.blocks(i).location().offset())[300] ^= std::byte{1};
      }
    };
    const TestAnswer& answer = Run(salted);
    EXPECT_EQ(answer.tokens, DirectAnswer(salted)) << answer.failed;
    EXPECT_EQ(answer.handover->pulled_blocks(), 5u);
    EXPECT_EQ(answer.handover->recomputed_tokens(), corrupt == 5 ? 10u : 16u);
  }
  EXPECT_EQ(decode_->pool->Stats().verify_failures, 6u);
}

TEST_F(FaultTest, AnnouncementsOfOtherKeysAreNotBelieved) {
  const TestRequest request{.prompt = RandomPrompt(90, 2)};
  router_->on_relay = [](v1::BlocksReady& ready) {
    if (ready.first_block() == 0) ready.mutable_blocks(0)->set_key(std::string(16, 'x'));
  };
  const TestAnswer& answer = Run(request);
  EXPECT_EQ(answer.tokens, DirectAnswer(request));
  EXPECT_EQ(answer.handover->recomputed_tokens(), 16u);
  EXPECT_EQ(decode_->metrics.mismatched_blocks.Value(), 1u);
}

TEST_F(FaultTest, PrefillNodeGoneDuringTheHandover) {
  router_->relay_after_done = true;
  router_->on_first_token = [&](uint64_t) {
    loop_.Post([&] {
      router_->LosePrefill();
      prefill_->Kill();
    });
  };
  const TestRequest request{.prompt = RandomPrompt(90, 3)};
  const TestAnswer& answer = Run(request);
  EXPECT_EQ(answer.tokens, DirectAnswer(request)) << answer.failed;
  EXPECT_EQ(answer.handover->recomputed_tokens(), 90u);
}

TEST(Failover, AtAnyMomentTheAnswerIsTheSame) {
  const TestRequest request{.prompt = RandomPrompt(90, 4), .max_new_tokens = 8};
  const std::vector<TokenId> expected = DirectAnswer(request);
  bool ended = false;
  int task = 0;
  for (; !ended; ++task) {
    SimEventLoop loop;
    Nodes nodes{&loop};
    auto first = std::make_unique<PrefillNode>(
        &nodes, "prefill-0", 64, 0, prefill::PrefillOptions{.batching = {.chunk_tokens = 32}});
    PrefillNode second(&nodes, "prefill-1", 64, 0, {.batching = {.chunk_tokens = 16}});
    DecodeNode decode(&nodes, "decode-0", 64, 0, {});
    auto router = std::make_unique<TestRouter>(&nodes, first.get(), &decode);
    const uint64_t id = router->Start(request);
    for (int i = 0; i < task && !ended; ++i) {
      loop.RunOne();
      ended = router->answer(id).ended();
    }
    first->Kill();
    router->FailOver(&second);
    loop.RunUntilIdle();
    ASSERT_EQ(router->answer(id).tokens, expected)
        << "after task " << task << ": " << router->answer(id).failed;
    second.ExpectClean();
    decode.ExpectClean();
    router.reset();
    ASSERT_LT(task, 500);
  }
  EXPECT_GT(task, 20);
}

TEST_F(FaultTest, AFailedStepFailsItsRequestsOnly) {
  const TestRequest request{.prompt = RandomPrompt(90, 5)};
  prefill_->executor->fail_at = 1;
  const TestAnswer& failed = Run(request);
  EXPECT_EQ(failed.failed.code(), absl::StatusCode::kInternal);
  EXPECT_NE(failed.failed.ToString().find("on fire"), std::string::npos);
  prefill_->ExpectClean();
  EXPECT_EQ(Run(request).tokens, DirectAnswer(request));
  decode_->executor->fail_at = decode_->executor->steps + 3;
  EXPECT_EQ(Run(request).failed.code(), absl::StatusCode::kInternal);
  decode_->ExpectClean();
  EXPECT_EQ(Run(request).tokens, DirectAnswer(request));
}

TEST_F(FaultTest, LostKvDoesNotStallTheOthers) {
  const uint64_t running = router_->Start({.prompt = RandomPrompt(20, 6), .max_new_tokens = 200});
  loop_.RunUntil([&] { return router_->answer(running).tokens.size() > 20; });
  router_->on_relay = [](v1::BlocksReady& ready) {
    for (auto& block : *ready.mutable_blocks()) block.mutable_location()->set_incarnation(1);
  };
  const TestRequest lost{.prompt = RandomPrompt(1000, 7)};
  const uint64_t id = router_->Start(lost);
  loop_.RunUntilIdle();
  EXPECT_EQ(router_->answer(id).tokens, DirectAnswer(lost));
  EXPECT_EQ(router_->answer(id).handover->recomputed_tokens(), 1000u);
  EXPECT_EQ(router_->answer(running).tokens.size(), 200u);
  EXPECT_LE(decode_->executor->largest_step, 256 + 1);
}

TEST_F(FaultTest, BadRequestsNameTheFieldAndHurtNobody) {
  const struct {
    const char* field;
    TestRequest request;
  } cases[] = {
      {"tokens is empty", {}},
      {"tokens[1]", {.prompt = {1, 100000}}},
      {"tokens has", {.prompt = RandomPrompt(TestModel().max_context, 8)}},
      {"end_token_ids", {.prompt = {1}, .end_tokens = {-1}}},
      {"max_new_tokens", {.prompt = {1}, .max_new_tokens = 0}},
      {"timeout_us", {.prompt = {1}, .timeout = absl::Seconds(-1)}},
  };
  for (const auto& bad : cases) {
    const TestAnswer& answer = Run(bad.request);
    EXPECT_EQ(answer.failed.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_NE(answer.failed.ToString().find(bad.field), std::string::npos) << answer.failed;
  }
  TestRequest nan{.prompt = {1}};
  nan.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(Run(nan).failed.ToString().find("temperature"), std::string::npos);
  const TestRequest good{.prompt = RandomPrompt(40, 9)};
  EXPECT_EQ(Run(good).tokens, DirectAnswer(good));
}

TEST_F(FaultTest, AnswersThatCanNeverFitAreRefusedAtOnce) {
  DecodeNode small(&nodes_, "decode-1", 4, 0, {});
  TestRouter router(&nodes_, prefill_.get(), &small);
  const uint64_t id = router.Start({.prompt = RandomPrompt(60, 10)});
  loop_.RunUntilIdle();
  EXPECT_EQ(router.answer(id).failed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(router.answer(id).failed.ToString().find("the node has 4"), std::string::npos);
  small.ExpectClean();
}

TEST_F(FaultTest, CommandsThatMakeNoSenseAreAnswered) {
  std::map<uint64_t, absl::Status> failures;
  FakeConnection<v1::DecodeCommand, v1::DecodeEvents> connection(
      &loop_, [&](auto stream) { return decode_->sessions->Open(stream); },
      [&](const v1::DecodeEvents& events) {
        for (const auto& event : events.events()) {
          if (event.has_failed()) failures[event.request_id()] = engine::FromProto(event.failed());
        }
      });
  const auto send = [&](uint64_t id, const std::function<void(v1::DecodeCommand&)>& fill) {
    v1::DecodeCommand command;
    command.set_request_id(id);
    fill(command);
    connection.Send(command);
  };
  const auto admit = [](v1::DecodeCommand& command) {
    command.mutable_admit()->add_tokens(1);
    command.mutable_admit()->set_prompt_length(1);
    command.mutable_admit()->set_max_new_tokens(5);
  };
  send(1, [](v1::DecodeCommand&) {});
  send(2, [](v1::DecodeCommand& command) { command.mutable_cancel(); });  // unknown: ignored
  send(3, admit);
  send(3, admit);
  send(4, admit);
  send(4, [](v1::DecodeCommand& command) { command.mutable_start(); });
  send(5, admit);
  send(5, [](v1::DecodeCommand& command) {
    command.mutable_blocks()->set_first_block(~0u);
    command.mutable_blocks()->add_blocks();
  });
  send(6, admit);
  send(6, [](v1::DecodeCommand& command) {
    command.mutable_start()->mutable_first_token()->set_token(1 << 30);
  });
  loop_.RunUntilIdle();
  EXPECT_EQ(failures.size(), 5u);
  for (const auto& [id, status] : failures) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id << ": " << status;
  }
  EXPECT_FALSE(failures.contains(2));
}

TEST_F(FaultTest, ADrainingNodeRefusesAndFinishesWhatItHas) {
  const TestRequest request{.prompt = RandomPrompt(40, 11)};
  const uint64_t running = router_->Start(request);
  loop_.RunUntil([&] { return router_->answer(running).tokens.size() > 3; });
  decode_->sessions->Drain();
  const uint64_t late = router_->Start(request);
  loop_.RunUntilIdle();
  EXPECT_EQ(router_->answer(late).failed.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(router_->answer(running).tokens, DirectAnswer(request));
}

}  // namespace
}  // namespace tarn::test
