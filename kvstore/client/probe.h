#pragma once

// The block that shows, before a node says it is ready, that peers can read from it.

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "common/transport/transport.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/client/peer_directory.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

// What the probe goes through: those of the pool. They outlive it.
struct ProbePath {
  NodePool* pool = nullptr;
  PeerDirectory* peers = nullptr;
  Transport* transport = nullptr;
};

// Seals a block in one page, and reads it into another one as a peer would: handshake with `self`,
// connect, one-sided read, verification. Not through Acquire, so it is no lookup, no hit and no
// rate. `done` runs on the loop, where this is called. The deadline bounds it.
void ProbePool(const ProbePath& path, const v1::NodeInfo& self, absl::Time deadline,
               std::function<void(absl::Status)> done);

}  // namespace tarn::kvstore
