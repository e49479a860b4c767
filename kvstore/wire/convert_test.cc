#include "kvstore/wire/convert.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

const BlockLayout kLayout{.layers = 2,
                          .kv_heads = 2,
                          .head_dim = 16,
                          .block_tokens = 16,
                          .type = KvType::kBf16,
                          .alignment = 128};

TEST(ConvertTest, LayoutRoundTrip) {
  absl::StatusOr<BlockLayout> layout = FromProto(ToProto(kLayout));
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(*layout, kLayout);
}

TEST(ConvertTest, BadLayoutsAreRefused) {
  v1::BlockLayout layout = ToProto(kLayout);
  layout.set_type(7);
  EXPECT_NE(Message(FromProto(layout).status()).find("type"), std::string::npos);
  layout = ToProto(kLayout);
  layout.set_layers(0xffffffff);
  EXPECT_FALSE(FromProto(layout).ok());
  EXPECT_FALSE(FromProto(v1::BlockLayout()).ok());
}

TEST(ConvertTest, LocationRoundTrip) {
  BlockSource source{NodeId("prefill-0"), Incarnation(7), "h:1", Tier::kDram, {1, 4096, 9}};
  absl::StatusOr<BlockSource> back = FromProto(ToProto(source));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->node, source.node);
  EXPECT_EQ(back->incarnation, source.incarnation);
  EXPECT_EQ(back->rpc_address, source.rpc_address);
  EXPECT_EQ(back->tier, source.tier);
  EXPECT_EQ(back->address, source.address);
}

TEST(ConvertTest, BadLocationsAreRefused) {
  EXPECT_NE(Message(FromProto(v1::BlockLocation()).status()).find("node_id"), std::string::npos);
  v1::BlockLocation location;
  location.set_node_id("n");
  EXPECT_NE(Message(FromProto(location).status()).find("tier"), std::string::npos);
}

TEST(ConvertTest, InventoryRoundTripAndBadKeys) {
  InventoryChange change{true, BlockKey{}, Tier::kHbm, {0, 8192, 3}, {TenantId("t"), 5, 2, 4}};
  change.key.bytes[3] = 9;
  absl::StatusOr<InventoryChange> added = FromProto(ToInventoryAdd(change));
  ASSERT_TRUE(added.ok());
  EXPECT_TRUE(added->added);
  EXPECT_EQ(added->key, change.key);
  EXPECT_EQ(added->address, change.address);
  EXPECT_EQ(added->traits, change.traits);
  absl::StatusOr<InventoryChange> removed = FromProto(ToInventoryRemove(change));
  ASSERT_TRUE(removed.ok());
  EXPECT_FALSE(removed->added);
  EXPECT_EQ(removed->key, change.key);
  v1::InventoryAdd bad = ToInventoryAdd(change);
  bad.set_key("short");
  EXPECT_FALSE(FromProto(bad).ok());
}

}  // namespace
}  // namespace tarn::kvstore
