#include "engine/wire/sequence.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "proto/decode.pb.h"
#include "proto/prefill.pb.h"

namespace tarn::engine {
namespace {

ModelInfo Model() {
  ModelInfo model;
  model.fingerprint = 1;
  model.vocab_size = 100;
  model.max_context = 16;
  return model;
}

BlockLayout Layout() { return {.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = 16}; }

v1::PrefillStart Good() {
  v1::PrefillStart start;
  for (int i = 0; i < 8; ++i) start.add_tokens(i);
  start.set_prompt_length(8);
  start.add_end_token_ids(9);
  start.set_salt("tenant");
  return start;
}

TEST(Sequence, TakesAllFields) {
  const auto spec = SequenceFrom(Good(), Model(), Layout());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->tokens.size(), 8u);
  EXPECT_EQ(spec->prompt_length, 8);
  EXPECT_EQ(spec->end_tokens, std::vector<TokenId>{9});
  EXPECT_EQ(spec->sampling.forbidden_before_min_tokens, std::vector<TokenId>{9});
}

TEST(Sequence, BothProtosGiveTheSameKeys) {
  v1::DecodeAdmit admit;
  for (int i = 0; i < 8; ++i) admit.add_tokens(i);
  admit.set_prompt_length(8);
  admit.set_salt("tenant");
  const auto prefill = SequenceFrom(Good(), Model(), Layout());
  const auto decode = SequenceFrom(admit, Model(), Layout());
  ASSERT_TRUE(prefill.ok() && decode.ok());
  EXPECT_EQ(prefill->root, decode->root);
  admit.set_salt("other");
  EXPECT_NE(SequenceFrom(admit, Model(), Layout())->root, prefill->root);
}

TEST(Sequence, RefusalsNameTheField) {
  const struct {
    const char* field;
    std::function<void(v1::PrefillStart&)> spoil;
  } cases[] = {
      {"tokens is empty", [](auto& start) { start.clear_tokens(); }},
      {"tokens[3]", [](auto& start) { start.set_tokens(3, 100); }},
      {"tokens[0]", [](auto& start) { start.set_tokens(0, -1); }},
      {"at most 15",
       [](auto& start) {
         while (start.tokens_size() < 16) start.add_tokens(1);
       }},
      {"prompt_length", [](auto& start) { start.set_prompt_length(0); }},
      {"prompt_length", [](auto& start) { start.set_prompt_length(9); }},
      {"end_token_ids[1]", [](auto& start) { start.add_end_token_ids(-5); }},
      {"end_token_ids has",
       [](auto& start) {
         for (int i = 0; i < 2000; ++i) start.add_end_token_ids(1);
       }},
      {"salt", [](auto& start) { start.set_salt(std::string(5000, 's')); }},
      {"lora", [](auto& start) { start.set_lora("x"); }},
      {"temperature", [](auto& start) { start.mutable_sampling()->set_temperature(-1); }},
  };
  for (const auto& bad : cases) {
    v1::PrefillStart start = Good();
    bad.spoil(start);
    const absl::Status status = SequenceFrom(start, Model(), Layout()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_NE(status.ToString().find(bad.field), std::string::npos) << status;
  }
}

TEST(Sequence, Timeouts) {
  EXPECT_EQ(*TimeoutFrom("timeout_us", 0, absl::Seconds(3)), absl::Seconds(3));
  EXPECT_EQ(*TimeoutFrom("timeout_us", 5, absl::Seconds(3)), absl::Microseconds(5));
  EXPECT_FALSE(TimeoutFrom("timeout_us", -1, absl::Seconds(3)).ok());
  const absl::Status status = TimeoutFrom("timeout_us", INT64_MAX, absl::Seconds(3)).status();
  EXPECT_NE(status.ToString().find("timeout_us"), std::string::npos);
}

}  // namespace
}  // namespace tarn::engine
