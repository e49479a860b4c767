// From a prefill node to a decode node: the tokens are those of one process, whatever was cached,
// however the prompt was cut, and nothing is left behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "tests/handover/test_router.h"

namespace tarn::test {
namespace {

constexpr int kBlock = 16;

struct Options {
  int hbm_pages = 256;
  int dram_pages = 0;
  prefill::PrefillOptions prefill;
  decode::DecodeOptions decode;
};

class HandoverTest : public testing::Test {
 protected:
  void Build(Options options = {}) {
    prefill_ = std::make_unique<PrefillNode>(&nodes_, "prefill-0", options.hbm_pages,
                                             options.dram_pages, options.prefill);
    decode_ = std::make_unique<DecodeNode>(&nodes_, "decode-0", options.hbm_pages,
                                           options.dram_pages, options.decode);
    router_ = std::make_unique<TestRouter>(&nodes_, prefill_.get(), decode_.get());
  }

  const TestAnswer& Run(const TestRequest& request) {
    const uint64_t id = router_->Start(request);
    loop_.RunUntilIdle();
    return router_->answer(id);
  }

  void ExpectSame(const TestRequest& request, const TestAnswer& answer) {
    EXPECT_TRUE(answer.failed.ok()) << answer.failed;
    EXPECT_EQ(answer.tokens, DirectAnswer(request));
  }

  void TearDown() override {
    loop_.RunUntilIdle();
    prefill_->ExpectClean();
    decode_->ExpectClean();
    EXPECT_TRUE(prefill_->sessions->idle());
    EXPECT_TRUE(decode_->sessions->idle());
    router_.reset();
  }

  SimEventLoop loop_;
  Nodes nodes_{&loop_};
  std::unique_ptr<PrefillNode> prefill_;
  std::unique_ptr<DecodeNode> decode_;
  std::unique_ptr<TestRouter> router_;
};

TEST_F(HandoverTest, PromptsOfAllLengthsAroundTheBlock) {
  Build();
  for (const int length : {1, 2, 15, 16, 17, 31, 32, 33, 64, 100}) {
    const TestRequest request{.prompt = RandomPrompt(length, length)};
    const TestAnswer& answer = Run(request);
    ExpectSame(request, answer);
    EXPECT_EQ(answer.finished, v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(answer.prefill->prompt().computed(), static_cast<uint32_t>(length));
    ASSERT_TRUE(answer.handover.has_value()) << length;
    EXPECT_EQ(answer.handover->recomputed_tokens(), 0u) << length;
    EXPECT_EQ(answer.handover->pulled_blocks(), (length + kBlock - 1) / kBlock) << length;
  }
}

TEST_F(HandoverTest, ChunksDoNotChangeTheAnswer) {
  const TestRequest request{.prompt = RandomPrompt(300, 1)};
  for (const int chunk : {1, 7, 16, 64, 100, 2048}) {
    Build({.prefill = {.batching = {.chunk_tokens = chunk}}});
    ExpectSame(request, Run(request));
    EXPECT_EQ(prefill_->executor->largest_step, std::min(chunk, 300));
    router_.reset();
    decode_.reset();
    prefill_.reset();
  }
  Build();
}

TEST_F(HandoverTest, SecondTimeOnlyTheLastBlockIsComputed) {
  Build();
  for (const int length : {64, 70, 33}) {
    const TestRequest request{.prompt = RandomPrompt(length, 7 + length), .with_plan = false};
    Run(request);
    const TestAnswer& again = Run(request);
    ExpectSame(request, again);
    const int cached = (length - 1) / kBlock;
    EXPECT_EQ(again.prefill->prompt().local_hbm(), static_cast<uint32_t>(cached * kBlock));
    EXPECT_EQ(again.prefill->prompt().computed(), static_cast<uint32_t>(length - cached * kBlock));
    // The decode node has them all too, but for a tail.
    EXPECT_EQ(again.local_blocks, length / kBlock);
    EXPECT_EQ(again.handover->pulled_blocks(), length % kBlock == 0 ? 0u : 1u);
  }
}

TEST_F(HandoverTest, ThePlanFetchesFromAnotherNode) {
  Build();
  PrefillNode other(&nodes_, "prefill-1", 256, 0, {});
  const TestRequest request{.prompt = RandomPrompt(100, 3)};
  Run(request);
  TestRouter second(&nodes_, &other, decode_.get());
  const uint64_t id = second.Start(request);
  loop_.RunUntilIdle();
  ExpectSame(request, second.answer(id));
  EXPECT_EQ(second.answer(id).prefill->prompt().remote(), 96u);
  EXPECT_EQ(second.answer(id).prefill->prompt().computed(), 4u);
  EXPECT_GT(second.answer(id).prefill->fetched_bytes(), 0u);
  other.ExpectClean();
}

TEST_F(HandoverTest, GeneratedBlocksServeTheNextTurn) {
  Build();
  TestRequest first{.prompt = RandomPrompt(40, 5), .max_new_tokens = 60};
  const TestAnswer& answer = Run(first);
  TestRequest next{.prompt = first.prompt};
  next.prompt.insert(next.prompt.end(), answer.tokens.begin(), answer.tokens.end());
  next.prompt.push_back(3);
  const TestAnswer& turn = Run(next);
  ExpectSame(next, turn);
  // 40 + 60 tokens: 6 full blocks, of which 99 tokens have KV.
  EXPECT_EQ(turn.local_blocks, 6);
  EXPECT_EQ(turn.prefill->prompt().computed(), 5u);
  EXPECT_EQ(turn.prefill->prompt().local_hbm(), 32u);  // what the prefill node computed itself
  EXPECT_EQ(turn.prefill->prompt().remote(), 64u);     // what the decode node generated
}

TEST_F(HandoverTest, EvictedPagesComeBackFromDram) {
  Build({.hbm_pages = 12, .dram_pages = 64});
  const TestRequest request{.prompt = RandomPrompt(100, 9), .with_plan = false};
  Run(request);
  for (int i = 0; i < 4; ++i) Run({.prompt = RandomPrompt(120, 100 + i), .with_plan = false});
  const TestAnswer& again = Run(request);
  ExpectSame(request, again);
  EXPECT_EQ(again.prefill->prompt().local_dram(), 96u);
  EXPECT_GT(decode_->pool->Stats().hits_dram, 0u);
}

TEST_F(HandoverTest, ManyAtATime) {
  Build(
      {.prefill = {.batching = {.chunk_tokens = 48}}, .decode = {.scheduling = {.max_batch = 16}}});
  std::vector<TestRequest> requests;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 16; ++i) {
    TestRequest request{.prompt = RandomPrompt(10 + 13 * i, i % 3), .max_new_tokens = 5 + 3 * i};
    request.sampling.seed = i;
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    requests.push_back(request);
    ids.push_back(router_->Start(request));
  }
  loop_.RunUntilIdle();
  for (size_t i = 0; i < ids.size(); ++i) ExpectSame(requests[i], router_->answer(ids[i]));
  EXPECT_GT(decode_->executor->largest_batch, 4);
}

TEST_F(HandoverTest, OneMessageAStepForTheWholeBatch) {
  Build();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 8; ++i) {
    ids.push_back(router_->Start({.prompt = RandomPrompt(20, i), .max_new_tokens = 101}));
  }
  loop_.RunUntilIdle();
  // 8 requests: 100 tokens each come in about 100 messages, not 800; some more for their beginning.
  EXPECT_LT(router_->decode_messages(), 150);
}

TEST_F(HandoverTest, FirstTokenMayBeTheLast) {
  Build();
  TestRequest one{.prompt = RandomPrompt(50, 11), .max_new_tokens = 1};
  const TestAnswer& answer = Run(one);
  EXPECT_EQ(answer.finished, v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.tokens, DirectAnswer(one));
  TestRequest stop{.prompt = one.prompt, .end_tokens = {answer.tokens[0]}};
  const TestAnswer& stopped = Run(stop);
  EXPECT_EQ(stopped.finished, v1::FINISH_REASON_STOP);
  EXPECT_EQ(stopped.tokens, answer.tokens);
}

TEST_F(HandoverTest, EndTokenStopsAndIsSent) {
  Build();
  TestRequest request{.prompt = RandomPrompt(50, 12)};
  const std::vector<TokenId> all = DirectAnswer(request);
  request.end_tokens = {all[7]};
  const TestAnswer& answer = Run(request);
  EXPECT_EQ(answer.finished, v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.tokens, DirectAnswer(request));
  EXPECT_EQ(answer.tokens.back(), all[7]);
}

TEST_F(HandoverTest, TheContextsEndIsALength) {
  Build({.hbm_pages = 200});
  const TestRequest request{.prompt = RandomPrompt(TestModel().max_context - 5, 13),
                            .max_new_tokens = 1000};
  const TestAnswer& answer = Run(request);
  ExpectSame(request, answer);
  EXPECT_EQ(answer.tokens.size(), 5u);
  EXPECT_EQ(answer.finished, v1::FINISH_REASON_LENGTH);
}

TEST_F(HandoverTest, SaltsDoNotShare) {
  Build();
  TestRequest request{.prompt = RandomPrompt(64, 14), .salt = "a"};
  Run(request);
  request.salt = "b";
  const TestAnswer& answer = Run(request);
  EXPECT_EQ(answer.local_blocks, 0);
  EXPECT_EQ(answer.prefill->prompt().computed(), 64u);
}

TEST_F(HandoverTest, PromptsWaitForPagesInsteadOfFailing) {
  Build({.hbm_pages = 12});
  // The decode node has room for one at a time: the others are refused there and then.
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(router_->Start({.prompt = RandomPrompt(120, 20 + i)}));
  loop_.RunUntilIdle();
  EXPECT_TRUE(router_->answer(ids[0]).failed.ok());
  EXPECT_EQ(router_->answer(ids[1]).failed.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(router_->answer(ids[2]).failed.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(HandoverTest, PrefillQueueWaitsForPages) {
  Build({.hbm_pages = 256});
  PrefillNode small(&nodes_, "prefill-1", 9, 0, {});
  TestRouter router(&nodes_, &small, decode_.get());
  std::vector<TestRequest> requests;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 4; ++i) {
    requests.push_back({.prompt = RandomPrompt(120, 30 + i)});
    ids.push_back(router.Start(requests.back()));
  }
  loop_.RunUntilIdle();
  for (int i = 0; i < 4; ++i) ExpectSame(requests[i], router.answer(ids[i]));
  EXPECT_GT(router.answer(ids[3]).prefill->queue_us(), 0);
  small.ExpectClean();
}

}  // namespace
}  // namespace tarn::test
