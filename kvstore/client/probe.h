#pragma once

// The block that shows, before a node says it is ready, that peers can read from it.

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "kvstore/client/node_pool.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

// Seals a block in one page, and pulls it into another one as a peer would: handshake with `self`,
// connect, one-sided read, verification. `done` runs on the loop, where this is called. The
// deadline bounds it.
void ProbePool(NodePool* pool, const v1::NodeInfo& self, absl::Time deadline,
               std::function<void(absl::Status)> done);

}  // namespace tarn::kvstore
