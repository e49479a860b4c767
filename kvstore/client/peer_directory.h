#pragma once

// Finds the transport's peer behind a block's source: the handshake, made once for each life of a
// node.

#include <functional>

#include "absl/status/statusor.h"
#include "common/transport/transport.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// Loop-only; does not block.
class PeerDirectory {
 public:
  using Done = std::function<void(absl::StatusOr<PeerId>)>;
  virtual ~PeerDirectory() = default;

  // `done` runs on the loop, possibly within this call where the peer is known. UNAVAILABLE: cannot
  // be reached, or is in another life by now. FAILED_PRECONDITION: model or layout differs (says
  // which).
  virtual void Resolve(const BlockSource& source, absl::Time deadline, Done done) = 0;

  // Asks the source's node to bring a block from its device into memory that its peer can read, and
  // says where. As Resolve; the node was resolved before. NOT_FOUND: it does not have the block any
  // more. RESOURCE_EXHAUSTED: too much is asked of it.
  using StageDone = std::function<void(absl::StatusOr<BlockAddress>)>;
  virtual void Stage(const BlockSource& source, const BlockKey& key, absl::Time deadline,
                     StageDone done) = 0;

  // A read from the peer failed as UNAVAILABLE: the next Resolve makes a new handshake.
  virtual void Forget(const BlockSource& source) = 0;
};

}  // namespace tarn::kvstore
