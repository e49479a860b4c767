#include "engine/factory/model_factory.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn::engine {
namespace {

TEST(ModelFactory, FakeModelRuns) {
  auto opened = OpenModel({.model = "fake", .served_name = "demo", .block_tokens = 16});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->info().name, "demo");
  EXPECT_EQ((*opened)->layout().block_tokens, 16);
  std::vector<uint64_t> arena(2 * (*opened)->layout().page_bytes() / sizeof(uint64_t));
  auto executor = (*opened)->MakeExecutor({reinterpret_cast<std::byte*>(arena.data()), 2});
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ((*executor)->model().fingerprint, (*opened)->info().fingerprint);
  EXPECT_EQ((*executor)->layout(), (*opened)->layout());
  const std::vector<TokenId> tokens{1, 2, 3};
  const std::vector<PageIndex> pages{1};
  const StepSequence step{.tokens = tokens, .position = 0, .pages = pages};
  EXPECT_TRUE((*executor)->Step({&step, 1}).ok());
}

TEST(ModelFactory, ErrorsNameTheOption) {
  EXPECT_EQ(OpenModel({}).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status blocks = OpenModel({.model = "fake", .block_tokens = 17}).status();
  EXPECT_NE(blocks.ToString().find("--block-tokens"), std::string::npos) << blocks;
  EXPECT_FALSE(OpenModel({.model = "/nowhere/at/all"}).ok());
  EXPECT_FALSE(OpenModel({.model = "/nowhere", .isa = "sparc"}).ok());
}

TEST(ModelFactory, PagesInMemory) {
  const BlockLayout layout = (*OpenModel({.model = "fake"}))->layout();
  EXPECT_EQ(*PagesIn(10 * layout.page_bytes() + 1, layout), 10);
  const absl::Status few = PagesIn(layout.page_bytes(), layout).status();
  EXPECT_NE(few.ToString().find("--kv-memory"), std::string::npos) << few;
}

}  // namespace
}  // namespace tarn::engine
