#include "client/local/local_generator.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>

#include "engine/fake/fake_executor.h"

namespace tarn::client {
namespace {

constexpr int kPages = 16;

class LocalGeneratorTest : public testing::Test {
 protected:
  LocalGeneratorTest() : memory_(kPages * Layout().page_bytes()) {
    auto executor = engine::FakeExecutor::Create({.layout = Layout(), .max_context = 256},
                                                 {memory_.data(), kPages});
    CHECK(executor.ok()) << executor.status();
    executor_ = std::move(*executor);
    request_.prompt.resize(100);
    std::iota(request_.prompt.begin(), request_.prompt.end(), 5);
    request_.sampling.temperature = 0;
    request_.max_new_tokens = 8;
  }
  static BlockLayout Layout() {
    return {.layers = 2, .kv_heads = 2, .head_dim = 16, .block_tokens = 16};
  }
  std::vector<TokenId> Run(int chunk, LocalFinish expected = LocalFinish::kLength) {
    LocalGenerator generator(executor_.get(), kPages, chunk);
    std::vector<TokenId> tokens;
    const auto finish = generator.Generate(request_, [&](const engine::SampledToken& token) {
      tokens.push_back(token.token);
      return true;
    });
    EXPECT_TRUE(finish.ok()) << finish.status();
    EXPECT_EQ(*finish, expected);
    return tokens;
  }

  std::vector<std::byte> memory_;
  std::unique_ptr<engine::FakeExecutor> executor_;
  LocalRequest request_;
};

TEST_F(LocalGeneratorTest, ChunksDoNotMatter) {
  const auto tokens = Run(512);
  EXPECT_EQ(tokens.size(), 8u);
  for (const int chunk : {1, 7, 16, 50, 99, 100}) EXPECT_EQ(Run(chunk), tokens) << chunk;
}

TEST_F(LocalGeneratorTest, EndTokenIsTheLast) {
  const auto tokens = Run(64);
  request_.end_tokens = {tokens[3]};
  const auto cut = Run(64, LocalFinish::kStop);
  EXPECT_LE(cut.size(), 4u);
  EXPECT_EQ(cut.back(), tokens[3]);
}

TEST_F(LocalGeneratorTest, CallerEndsTheAnswer) {
  LocalGenerator generator(executor_.get(), kPages, 64);
  int count = 0;
  const auto finish =
      generator.Generate(request_, [&](const engine::SampledToken&) { return ++count < 3; });
  EXPECT_EQ(*finish, LocalFinish::kEndedByCaller);
  EXPECT_EQ(count, 3);
}

TEST_F(LocalGeneratorTest, TooLongForThePagesIsRefused) {
  request_.max_new_tokens = 200;
  LocalGenerator generator(executor_.get(), kPages, 64);
  const auto finish =
      generator.Generate(request_, [](const engine::SampledToken&) { return true; });
  EXPECT_EQ(finish.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tarn::client
