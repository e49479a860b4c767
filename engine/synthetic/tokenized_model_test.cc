#include "engine/synthetic/tokenized_model.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "common/base/status.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {
namespace {

namespace fs = std::filesystem;

class TokenizedModel : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/tokenized.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string root_;
};

TEST_P(TokenizedModel, ModelAndTokenizerFit) {
  const std::string directory = root_ + "/model";
  const auto spec = SyntheticPreset(GetParam());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const absl::Status status = WriteTokenizedModel(directory, *spec);
  ASSERT_TRUE(status.ok()) << status;
  const auto text = ReadTextFile(directory + "/config.json");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto config = ModelConfig::Parse(*text, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  auto loaded = Tokenizer::Load(directory);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::shared_ptr<const Tokenizer> tokenizer = std::move(loaded).value();
  EXPECT_EQ(tokenizer->vocab_size(), config->vocab_size);
  EXPECT_EQ(config->eos_token_ids.size(), 2u);
  EXPECT_GE(config->bos_token_id, 0);
  const auto chat = ChatTemplate::Load(directory, tokenizer);
  EXPECT_TRUE(chat.ok()) << chat.status();
}

TEST_P(TokenizedModel, TooSmallVocabularyIsAnError) {
  auto spec = SyntheticPreset(GetParam());
  ASSERT_TRUE(spec.ok()) << spec.status();
  spec->config.vocab_size = 100;
  const absl::Status status = WriteTokenizedModel(root_ + "/model", *spec);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_FALSE(fs::exists(root_ + "/model"));
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizedModel, testing::Values("tiny", "tiny-llama"));

}  // namespace
}  // namespace tarn::engine
