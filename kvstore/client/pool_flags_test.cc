#include "kvstore/client/pool_flags.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

TEST(PoolFlagsTest, ReadsTenantShares) {
  auto share = ParseTenantShare("alice=20%");
  ASSERT_TRUE(share.ok()) << share.status();
  EXPECT_EQ(share->first, TenantId("alice"));
  EXPECT_DOUBLE_EQ(share->second.guaranteed, 0.2);
  EXPECT_DOUBLE_EQ(share->second.limit, 1);
  share = ParseTenantShare("a=b=2.5%..50%");
  ASSERT_TRUE(share.ok()) << share.status();
  EXPECT_EQ(share->first, TenantId("a=b"));
  EXPECT_DOUBLE_EQ(share->second.guaranteed, 0.025);
  EXPECT_DOUBLE_EQ(share->second.limit, 0.5);
}

TEST(PoolFlagsTest, RefusesWhatIsNoShare) {
  for (const char* text : {"", "alice", "=20%", "alice=", "alice=20", "alice=-1%", "alice=101%",
                           "alice=nan%", "alice=50%..20%", "alice=1%..", "alice=..2%"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTenantShare(text).status())) << text;
  }
}

TEST(PoolFlagsTest, GuaranteesFitIntoTheTier) {
  PoolFlags flags;
  flags.tenants = {"a=60%", "b=40%"};
  ASSERT_TRUE(PoolOptionsFrom(flags, {}).ok());
  flags.tenants.push_back("c=1%");
  EXPECT_NE(Message(PoolOptionsFrom(flags, {}).status()).find("at most 100%"), std::string::npos);
  flags.tenants = {"a=1%", "a=2%"};
  EXPECT_NE(Message(PoolOptionsFrom(flags, {}).status()).find("twice"), std::string::npos);
}

TEST(PoolFlagsTest, WritesThroughUnlessToldOtherwise) {
  PoolFlags flags;
  EXPECT_EQ(PoolOptionsFrom(flags, {})->write_policy, WritePolicy::kThrough);
  flags.write_policy = "back";
  EXPECT_EQ(PoolOptionsFrom(flags, {})->write_policy, WritePolicy::kBack);
}

}  // namespace
}  // namespace tarn::kvstore
