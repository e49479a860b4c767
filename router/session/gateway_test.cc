#include "router/session/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/runtime/sim/sim_event_loop.h"
#include "router/session/fake_gateway.h"

namespace tarn::router {
namespace {

using ::testing::ElementsAre;

struct RecordingSink : GenerationSink {
  std::vector<TokenId> tokens;
  int finished = 0, failed = 0;
  FinishReason reason = FinishReason::kLength;
  absl::Status status;
  std::function<void()> on_tokens;

  void OnTokens(std::span<const engine::SampledToken> more) override {
    for (const auto& token : more) tokens.push_back(token.token);
    if (on_tokens) on_tokens();
  }
  void OnFinished(FinishReason why, const GenerationReport&) override {
    ++finished;
    reason = why;
  }
  void OnFailed(const absl::Status& why, absl::Duration) override {
    ++failed;
    status = why;
  }
};

TEST(SaltFor, NoTwoPairsMeet) {
  const std::vector<std::string> parts = {"", "a", "b", "ab", "1:a", "a1:b", "0:"};
  std::set<std::string> salts;
  for (const std::string& tenant : parts) {
    for (const std::string& salt : parts) salts.insert(SaltFor(tenant, salt));
  }
  EXPECT_EQ(salts.size(), parts.size() * parts.size());
}

GenerationRequest RequestOf(int max_new_tokens) {
  GenerationRequest request;
  request.prompt = {1, 2, 3};
  request.end_tokens = {0};
  request.max_new_tokens = max_new_tokens;
  return request;
}

TEST(FakeGateway, AnswersByTheScriptThenByTheRule) {
  SimEventLoop loop;
  FakeGateway gateway(&loop);
  gateway.SetScript([](const GenerationRequest&) { return std::vector<TokenId>{50, 51}; });
  RecordingSink sink;
  auto generation = gateway.Start(RequestOf(3), &sink);
  EXPECT_TRUE(sink.tokens.empty());
  loop.RunUntilIdle();
  EXPECT_THAT(sink.tokens, ElementsAre(50, 51, 8));  // 1 + 2 + 3 + index 2
  EXPECT_EQ(sink.finished, 1);
  EXPECT_EQ(sink.reason, FinishReason::kLength);
  EXPECT_EQ(gateway.running(), 0);
}

TEST(FakeGateway, EndTokenStops) {
  SimEventLoop loop;
  FakeGateway gateway(&loop);
  gateway.SetScript([](const GenerationRequest&) { return std::vector<TokenId>{5, 0, 5}; });
  RecordingSink sink;
  auto generation = gateway.Start(RequestOf(9), &sink);
  loop.RunUntilIdle();
  EXPECT_THAT(sink.tokens, ElementsAre(5, 0));
  EXPECT_EQ(sink.reason, FinishReason::kStop);
}

TEST(FakeGateway, FailsAfterTokens) {
  SimEventLoop loop;
  FakeGateway gateway(&loop);
  gateway.FailNext({absl::UnavailableError("gone"), absl::Seconds(1), 2});
  RecordingSink sink;
  auto generation = gateway.Start(RequestOf(9), &sink);
  loop.RunUntilIdle();
  EXPECT_EQ(sink.tokens.size(), 2u);
  EXPECT_EQ(sink.failed, 1);
  EXPECT_EQ(sink.finished, 0);
}

TEST(FakeGateway, DestroyingInACallbackCancels) {
  SimEventLoop loop;
  FakeGateway gateway(&loop);
  RecordingSink sink;
  auto generation = gateway.Start(RequestOf(9), &sink);
  sink.on_tokens = [&] { generation.reset(); };
  loop.RunUntilIdle();
  EXPECT_EQ(sink.tokens.size(), 1u);
  EXPECT_EQ(sink.finished + sink.failed, 0);
  EXPECT_EQ(gateway.cancelled(), 1);
}

}  // namespace
}  // namespace tarn::router
