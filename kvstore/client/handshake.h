#pragma once

// Whether two nodes may read each other's blocks.

#include "absl/status/status.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

// FAILED_PRECONDITION names both nodes and what differs: model fingerprint or block layout.
absl::Status CheckCompatible(const v1::NodeInfo& self, const v1::NodeInfo& other);

}  // namespace tarn::kvstore
