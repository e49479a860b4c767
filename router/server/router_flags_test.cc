#include "router/server/router_flags.h"

#include <gtest/gtest.h>

namespace tarn::router {
namespace {

TEST(RouterFlags, ServiceClasses) {
  const auto classes = ParseServiceClasses({"interactive=500ms,50ms", "batch=1m,-"});
  ASSERT_TRUE(classes.ok()) << classes.status();
  EXPECT_EQ(classes->at("interactive").ttft, absl::Milliseconds(500));
  EXPECT_EQ(classes->at("interactive").tpot, absl::Milliseconds(50));
  EXPECT_EQ(classes->at("batch").ttft, absl::Minutes(1));
  EXPECT_EQ(classes->at("batch").tpot, absl::InfiniteDuration());
  for (const char* bad :
       {"", "a", "=1s,1s", "a=1s", "a=1s,2s,3s", "a=0s,1s", "a=-1s,1s", "a=x,1s"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseServiceClasses({bad}).status())) << bad;
  }
  EXPECT_FALSE(ParseServiceClasses({"a=1s,1s", "a=2s,2s"}).ok());
}

TEST(RouterFlags, TenantWeights) {
  const auto weights = ParseTenantWeights({"gold=3", "a=b=0.5"});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->at("gold"), 3);
  EXPECT_EQ(weights->at("a=b"), 0.5);
  for (const char* bad : {"", "a", "a=", "=1", "a=0", "a=-1", "a=nan", "a=1e9", "a=x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTenantWeights({bad}).status())) << bad;
  }
}

}  // namespace
}  // namespace tarn::router
