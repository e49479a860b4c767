#pragma once

// Protos to the pool's values and back, in one place. What comes from the wire is checked here.

#include <string>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"
#include "common/base/step_time.h"
#include "common/memory/block_layout.h"
#include "kvstore/core/types.h"
#include "proto/common.pb.h"
#include "proto/kvstore.pb.h"

namespace tarn::kvstore {

v1::BlockLayout ToProto(const BlockLayout& layout);
// INVALID_ARGUMENT names the field.
absl::StatusOr<BlockLayout> FromProto(const v1::BlockLayout& layout);

v1::Tier ToProto(Tier tier);
absl::StatusOr<Tier> FromProto(v1::Tier tier);

v1::BlockLocation ToProto(const BlockSource& source);
absl::StatusOr<BlockSource> FromProto(const v1::BlockLocation& location);

v1::InventoryAdd ToInventoryAdd(const InventoryChange& change);
v1::InventoryRemove ToInventoryRemove(const InventoryChange& change);
absl::StatusOr<InventoryChange> FromProto(const v1::InventoryAdd& add);
absl::StatusOr<InventoryChange> FromProto(const v1::InventoryRemove& remove);

v1::StepTime ToProto(const StepTime& time);
StepTime FromProto(const v1::StepTime& time);

// "prefill-0 (incarnation 12ab)": for messages.
std::string Describe(const v1::NodeInfo& info);

}  // namespace tarn::kvstore
