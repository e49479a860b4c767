#pragma once

// A node that only stores: a PoolNode whose arena is DRAM, and an Adopter that fills it.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kvstore/client/pool_node.h"
#include "kvstore/core/admission.h"
#include "kvstore/directory/subscriber.h"
#include "kvstore/server/adopter.h"

namespace tarn::kvstore {

// Made and destroyed on any thread but the node's loop. Both block.
class Store {
 public:
  // `node`: as of any node; its model is whose blocks it keeps, its DRAM the arena. Role, arena and
  // pages are set here. INVALID_ARGUMENT, RESOURCE_EXHAUSTED: as PoolNode.
  static absl::StatusOr<std::unique_ptr<Store>> Start(PoolNodeOptions node);
  ~Store();

 private:
  explicit Store(std::unique_ptr<PoolNode> node) : node_(std::move(node)) {}
  void StartAdopting(const std::vector<std::string>& directories);
  // Those that share the blocks, this one first. `own`: its figures now.
  std::vector<StoreView> Stores(const NodePoolStats& own) const;

  const std::unique_ptr<PoolNode> node_;
  // A second copy of everything, at the store whose turn it is; what two nodes have already is safe
  // without one.
  std::unique_ptr<const PlacedAdmission> admission_;
  std::unique_ptr<Adopter> adopter_;                 // on the node's loop
  std::unique_ptr<DirectorySubscriber> subscriber_;  // on the node's loop
};

}  // namespace tarn::kvstore
