#include "client/cli/batch.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/status.h"

namespace tarn::client {
namespace {

TEST(ParseRequests, LinesOverrideTheDefaults) {
  v1::SamplingParams defaults;
  defaults.set_max_tokens(16);
  defaults.set_temperature(0.5f);
  const auto requests = ParseRequests(
      "{\"prompt\": \"a\"}\n\n"
      "{\"tokens\": [1, 2], \"max_tokens\": 3, \"seed\": 9, \"stop\": [\"x\", \"y\"], "
      "\"tenant\": \"t\"}\n",
      defaults);
  ASSERT_TRUE(requests.ok()) << requests.status();
  ASSERT_EQ(requests->size(), 2u);
  EXPECT_EQ((*requests)[0].text(), "a");
  EXPECT_EQ((*requests)[0].options().sampling().max_tokens(), 16u);
  const v1::GenerateRequest& second = (*requests)[1];
  EXPECT_EQ(second.tokens().ids_size(), 2);
  EXPECT_EQ(second.options().tenant(), "t");
  EXPECT_EQ(second.options().sampling().max_tokens(), 3u);
  EXPECT_EQ(second.options().sampling().seed(), 9u);
  EXPECT_EQ(second.options().sampling().stop_size(), 2);
  EXPECT_EQ(second.options().sampling().temperature(), 0.5f);
}

TEST(ParseRequests, ErrorsNameTheLine) {
  const auto message = [](const std::string& text) {
    const auto requests = ParseRequests("{\"prompt\": \"a\"}\n" + text, {});
    EXPECT_EQ(requests.status().code(), absl::StatusCode::kInvalidArgument);
    return Message(requests.status());
  };
  EXPECT_EQ(message("{\"prompt\": \"a\", \"tokens\": []}"),
            "line 2: needs one of prompt and tokens");
  EXPECT_EQ(message("{\"prompt\": \"a\", \"max_token\": 1}"), "line 2: unknown field max_token");
  EXPECT_EQ(message("[]"), "line 2: is not a JSON object");
  EXPECT_EQ(message("{").rfind("line 2: ", 0), 0u);
  EXPECT_EQ(message("{\"prompt\": 1}").rfind("line 2: ", 0), 0u);
}

TEST(AnswerJson, HasTokensOrTheError) {
  BatchAnswer answer;
  answer.token_ids = {4, 5};
  answer.text = "é\n";
  answer.finish_reason = v1::FINISH_REASON_LENGTH;
  answer.usage.set_cached_tokens(32);
  auto json = nlohmann::json::parse(AnswerJson(3, answer));
  EXPECT_EQ(json["index"], 3);
  EXPECT_EQ(json["token_ids"], std::vector<int>({4, 5}));
  EXPECT_EQ(json["text"], "é\n");
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["cached_tokens"], 32);
  answer.status = absl::InvalidArgumentError("prompt: is empty");
  json = nlohmann::json::parse(AnswerJson(0, answer));
  EXPECT_EQ(json["error"], "prompt: is empty");
  EXPECT_EQ(json["code"], 3);
}

}  // namespace
}  // namespace tarn::client
