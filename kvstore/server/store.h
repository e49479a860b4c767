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
#include "kvstore/server/departure.h"
#include "kvstore/server/neighbours.h"
#include "kvstore/server/store_metrics.h"

namespace tarn::kvstore {

// Made and destroyed on any thread but the node's loop. Both block.
class Store {
 public:
  // `node`: as of any node; its model is whose blocks it keeps, its DRAM the arena. Role, arena and
  // pages are set here. INVALID_ARGUMENT, RESOURCE_EXHAUSTED: as PoolNode.
  static absl::StatusOr<std::unique_ptr<Store>> Start(PoolNodeOptions node);
  ~Store();

  // Says that it is leaving, takes nothing more, and serves on until the other stores have taken
  // what only it has and they want, `limit` at most; blocks. At once where there is no other store.
  // To be destroyed next.
  DepartureOutcome Drain(absl::Duration limit);

 private:
  explicit Store(std::unique_ptr<PoolNode> node);
  void StartAdopting(const std::vector<std::string>& directories);
  Neighbours MakeNeighbours() const;
  // Those that share the blocks, this one first. `own`: its figures now.
  std::vector<StoreView> Stores(const NodePoolStats& own) const;
  Neighbour About(const NodeId& node) const;
  size_t Room() const;
  bool IsOtherStore(const ClusterNode& node) const;
  void UpdateMetrics();

  const std::unique_ptr<PoolNode> node_;
  const NodeId self_;
  StoreMetrics metrics_;  // on the node's loop, as all that follows
  TimerId metrics_timer_ = 0;
  // A second copy of everything, at the store whose turn it is; what two nodes have already is safe
  // without one.
  std::unique_ptr<const PlacedAdmission> admission_;
  std::unique_ptr<Adopter> adopter_;
  std::unique_ptr<DirectorySubscriber> subscriber_;
  std::unique_ptr<Departure> departure_;
};

}  // namespace tarn::kvstore
