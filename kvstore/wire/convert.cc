#include "kvstore/wire/convert.h"

#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

absl::StatusOr<BlockKey> KeyFrom(const std::string& bytes) {
  absl::StatusOr<BlockKey> key = BlockKey::FromBytes(bytes);
  if (!key.ok()) return Annotate(key.status(), "block key");
  return key;
}

// Layout sizes are small; Validate then says what is wrong with them.
int ToInt(uint32_t value) {
  constexpr uint32_t kMax = std::numeric_limits<int>::max();
  return static_cast<int>(value < kMax ? value : kMax);
}

}  // namespace

v1::BlockLayout ToProto(const BlockLayout& layout) {
  v1::BlockLayout proto;
  proto.set_layers(layout.layers);
  proto.set_kv_heads(layout.kv_heads);
  proto.set_head_dim(layout.head_dim);
  proto.set_block_tokens(layout.block_tokens);
  proto.set_type(static_cast<uint32_t>(layout.type));
  proto.set_alignment(layout.alignment);
  return proto;
}

absl::StatusOr<BlockLayout> FromProto(const v1::BlockLayout& proto) {
  if (proto.type() > static_cast<uint32_t>(KvType::kBf16)) {
    return absl::InvalidArgumentError(absl::StrCat("layout.type is unknown: ", proto.type()));
  }
  BlockLayout layout;
  layout.layers = ToInt(proto.layers());
  layout.kv_heads = ToInt(proto.kv_heads());
  layout.head_dim = ToInt(proto.head_dim());
  layout.block_tokens = ToInt(proto.block_tokens());
  layout.type = static_cast<KvType>(proto.type());
  layout.alignment = ToInt(proto.alignment());
  RETURN_IF_ERROR(layout.Validate());
  return layout;
}

v1::Tier ToProto(Tier tier) { return static_cast<v1::Tier>(tier); }

absl::StatusOr<Tier> FromProto(v1::Tier tier) {
  switch (tier) {
    case v1::TIER_HBM:
      return Tier::kHbm;
    case v1::TIER_DRAM:
      return Tier::kDram;
    case v1::TIER_SSD:
      return Tier::kSsd;
    default:
      return absl::InvalidArgumentError(absl::StrCat("tier is unknown: ", int{tier}));
  }
}

v1::BlockLocation ToProto(const BlockSource& source) {
  v1::BlockLocation proto;
  proto.set_node_id(source.node.value());
  proto.set_incarnation(source.incarnation.value());
  proto.set_rpc_address(source.rpc_address);
  proto.set_tier(ToProto(source.tier));
  proto.set_region(source.address.region);
  proto.set_offset(source.address.offset);
  proto.set_epoch(source.address.epoch);
  return proto;
}

absl::StatusOr<BlockSource> FromProto(const v1::BlockLocation& proto) {
  if (proto.node_id().empty()) {
    return absl::InvalidArgumentError("location.node_id is empty");
  }
  ASSIGN_OR_RETURN(Tier tier, FromProto(proto.tier()));
  return BlockSource{NodeId(proto.node_id()), Incarnation(proto.incarnation()), proto.rpc_address(),
                     tier, BlockAddress{proto.region(), proto.offset(), proto.epoch()}};
}

v1::InventoryAdd ToInventoryAdd(const InventoryChange& change) {
  v1::InventoryAdd proto;
  proto.set_key(change.key.ToBytes());
  proto.set_tier(ToProto(change.tier));
  proto.set_region(change.address.region);
  proto.set_offset(change.address.offset);
  proto.set_epoch(change.address.epoch);
  if (!change.traits.tenant.value().empty()) proto.set_tenant(change.traits.tenant.value());
  proto.set_position(change.traits.position);
  proto.set_turn(change.traits.turn);
  proto.set_new_blocks(change.traits.new_blocks);
  return proto;
}

v1::InventoryRemove ToInventoryRemove(const InventoryChange& change) {
  v1::InventoryRemove proto;
  proto.set_key(change.key.ToBytes());
  proto.set_tier(ToProto(change.tier));
  return proto;
}

absl::StatusOr<InventoryChange> FromProto(const v1::InventoryAdd& proto) {
  ASSIGN_OR_RETURN(BlockKey key, KeyFrom(proto.key()));
  ASSIGN_OR_RETURN(Tier tier, FromProto(proto.tier()));
  return InventoryChange{
      true, key, tier, BlockAddress{proto.region(), proto.offset(), proto.epoch()},
      BlockTraits{TenantId(proto.tenant()), proto.position(), proto.turn(), proto.new_blocks()}};
}

absl::StatusOr<InventoryChange> FromProto(const v1::InventoryRemove& proto) {
  ASSIGN_OR_RETURN(BlockKey key, KeyFrom(proto.key()));
  ASSIGN_OR_RETURN(Tier tier, FromProto(proto.tier()));
  return InventoryChange{.added = false, .key = key, .tier = tier};
}

v1::StepTime ToProto(const StepTime& time) {
  v1::StepTime proto;
  proto.set_base_us(time.base_us);
  proto.set_us_per_token(time.us_per_token);
  proto.set_us_per_attended(time.us_per_attended);
  return proto;
}

StepTime FromProto(const v1::StepTime& proto) {
  return {proto.base_us(), proto.us_per_token(), proto.us_per_attended()};
}

std::string Describe(const v1::NodeInfo& info) {
  return absl::StrCat(info.node_id(), " (incarnation ", absl::Hex(info.incarnation()), ")");
}

}  // namespace tarn::kvstore
