#include "engine/model/model_config.h"

#include <cmath>

#include "common/base/status.h"
#include "engine/model/generation_config.h"
#include "engine/model/rope.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tarn::engine {
namespace {

using nlohmann::json;

json Qwen() {
  return {{"architectures", {"Qwen3ForCausalLM"}},
          {"hidden_size", 1024},
          {"num_hidden_layers", 28},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 8},
          {"head_dim", 128},
          {"intermediate_size", 3072},
          {"vocab_size", 151936},
          {"max_position_embeddings", 40960},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1000000},
          {"rope_scaling", nullptr},
          {"tie_word_embeddings", true},
          {"use_sliding_window", false},
          {"sliding_window", nullptr},
          {"hidden_act", "silu"},
          {"torch_dtype", "bfloat16"},
          {"bos_token_id", 151643},
          {"eos_token_id", 151645}};
}

json Llama() {
  json root = Qwen();
  root["architectures"] = {"LlamaForCausalLM"};
  root.erase("head_dim");
  root["tie_word_embeddings"] = false;
  root["eos_token_id"] = {128001, 128009};
  root["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 8192}};
  return root;
}

absl::StatusOr<ModelConfig> Parse(const json& root) {
  return ModelConfig::Parse(root.dump(), "dir/config.json");
}

TEST(ModelConfigTest, Qwen3) {
  const auto config = Parse(Qwen());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kQwen3);
  EXPECT_TRUE(config->qk_norm());
  EXPECT_EQ(config->hidden_size, 1024);
  EXPECT_EQ(config->q_rows(), 2048);
  EXPECT_EQ(config->kv_rows(), 1024);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->eos_token_ids, std::vector<TokenId>{151645});
  EXPECT_EQ(config->bos_token_id, 151643);
}

TEST(ModelConfigTest, Llama3) {
  const auto config = Parse(Llama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_FALSE(config->qk_norm());
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->rope_scaling.kind, RopeScaling::Kind::kLlama3);
  EXPECT_EQ(config->rope_scaling.original_max_position, 8192);
  EXPECT_EQ(config->eos_token_ids, (std::vector<TokenId>{128001, 128009}));
}

TEST(ModelConfigTest, RopeParametersOfTransformers5) {
  json root = Qwen();
  root.erase("rope_theta");
  root["rope_parameters"] = {{"rope_type", "yarn"},
                             {"rope_theta", 5e5},
                             {"factor", 4.0},
                             {"original_max_position_embeddings", 32768}};
  const auto config = Parse(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 5e5);
  EXPECT_EQ(config->rope_scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_EQ(config->max_position, 131072);
  EXPECT_NEAR(config->rope_scaling.attention_factor, 0.1 * std::log(4.0) + 1, 1e-15);
}

struct BadField {
  const char* field;
  json value;  // discarded: the field is removed
  const char* message;
};

TEST(ModelConfigTest, NamesFileFieldAndExpectation) {
  const json removed(json::value_t::discarded);
  const BadField cases[] = {
      {"architectures", {"MistralForCausalLM"}, "expected Qwen3ForCausalLM or LlamaForCausalLM"},
      {"architectures", "Qwen3ForCausalLM", "expected a list"},
      {"architectures", removed, "expected Qwen3ForCausalLM"},
      {"hidden_size", removed, "missing, expected an integer from 1"},
      {"hidden_size", "1024", "is \"1024\", expected an integer"},
      {"hidden_size", 1024.5, "expected an integer"},
      {"hidden_size", 0, "expected an integer from 1"},
      {"hidden_size", 18446744073709551615u, "expected an integer"},
      {"num_hidden_layers", removed, "missing"},
      {"num_hidden_layers", -1, "is -1"},
      {"num_attention_heads", removed, "missing"},
      {"num_key_value_heads", 3, "expected a divisor"},
      {"head_dim", 127, "even"},
      {"head_dim", {1}, "expected an integer"},
      {"intermediate_size", removed, "missing"},
      {"vocab_size", removed, "missing"},
      {"vocab_size", 1 << 30, "expected an integer from 1 to 16777216"},
      {"max_position_embeddings", removed, "missing"},
      {"rms_norm_eps", removed, "missing, expected a number"},
      {"rms_norm_eps", "1e-6", "expected a number"},
      {"rope_theta", -1, "expected a number from 1"},
      {"tie_word_embeddings", 1, "expected true or false"},
      {"attention_bias", "no", "expected true or false"},
      {"eos_token_id", 151936, "expected a token id from 0 to 151935"},
      {"eos_token_id", {1, -2}, "holds -2"},
      {"bos_token_id", "x", "expected a token id"},
      {"use_sliding_window", true, "not supported"},
      {"hidden_act", "gelu", "expected silu"},
      {"mlp_bias", true, "not supported"},
      {"quantization_config", {{"bits", 4}}, "not supported"},
      {"rope_scaling", 3, "expected an object"},
      {"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}, "depends on the length"},
      {"rope_scaling", {{"type", "longrope"}}, "expected default, linear, llama3 or yarn"},
      {"rope_scaling", {{"type", "linear"}}, "factor: missing"},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}, "factor: is 0.5"},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}, "low_freq_factor: missing"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 8}, {"beta_fast", "x"}}, "beta_fast"},
  };
  for (const BadField& c : cases) {
    json root = Qwen();
    if (c.value.is_discarded()) {
      root.erase(c.field);
    } else {
      root[c.field] = c.value;
    }
    const absl::Status status = Parse(root).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_EQ(Message(status).rfind("dir/config.json: ", 0), 0u) << status;
    EXPECT_NE(Message(status).find(c.field), std::string::npos) << status;
    EXPECT_NE(Message(status).find(c.message), std::string::npos) << status;
  }
}

TEST(ModelConfigTest, RefusesWhatIsNotAnObject) {
  for (const char* text : {"", "{", "[]", "3", "\xff", "{\"a\": 1e999}"}) {
    EXPECT_EQ(ModelConfig::Parse(text, "f").status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ModelConfigTest, ReadTextFileSaysWhy) {
  EXPECT_EQ(ReadTextFile("/nonexistent/config.json").status().code(), absl::StatusCode::kNotFound);
}

TEST(RopeTest, PlainFrequencies) {
  const std::vector<double> frequencies = RopeFrequencies(*Parse(Qwen()));
  ASSERT_EQ(frequencies.size(), 64u);
  EXPECT_DOUBLE_EQ(frequencies[0], 1);
  EXPECT_DOUBLE_EQ(frequencies[32], 1e-3);
}

TEST(RopeTest, Llama3KeepsShortWavesAndStretchesLongOnes) {
  json root = Llama();
  root["rope_theta"] = 500000;
  const std::vector<double> frequencies = RopeFrequencies(*Parse(root));
  EXPECT_DOUBLE_EQ(frequencies[0], 1);
  EXPECT_DOUBLE_EQ(frequencies[31], std::pow(500000, -62.0 / 64) / 8);
}

TEST(RopeTest, YarnKeepsTheFirstAndStretchesTheLast) {
  json root = Qwen();
  root["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
  const std::vector<double> frequencies = RopeFrequencies(*Parse(root));
  EXPECT_DOUBLE_EQ(frequencies[0], 1);
  EXPECT_DOUBLE_EQ(frequencies[63], std::pow(1e6, -126.0 / 128) / 4);
}

TEST(GenerationConfigTest, OverridesTheModel) {
  const ModelConfig model = *Parse(Qwen());
  const auto config = GenerationConfig::Parse(
      R"({"eos_token_id": [5, 6], "temperature": 0.6, "top_p": 0.95, "top_k": 20})", "g", model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_token_ids, (std::vector<TokenId>{5, 6}));
  EXPECT_FLOAT_EQ(config->temperature, 0.6f);
  EXPECT_FLOAT_EQ(config->top_p, 0.95f);
  EXPECT_EQ(config->top_k, 20);
}

TEST(GenerationConfigTest, DefaultsAndGreedy) {
  const ModelConfig model = *Parse(Qwen());
  EXPECT_EQ(GenerationConfig::Load("/nonexistent", model)->eos_token_ids, model.eos_token_ids);
  EXPECT_EQ(GenerationConfig::Parse(R"({"do_sample": false})", "g", model)->temperature, 0);
}

TEST(GenerationConfigTest, NamesTheField) {
  const ModelConfig model = *Parse(Qwen());
  for (const char* field : {"eos_token_id", "temperature", "top_p", "top_k", "do_sample"}) {
    const json root = {{field, "x"}};
    const absl::Status status = GenerationConfig::Parse(root.dump(), "g", model).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(status).find(field), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace tarn::engine
