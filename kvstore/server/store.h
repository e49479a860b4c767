#pragma once

// A node that only stores: a PoolNode whose arena is DRAM, and an Adopter that fills it.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config/parse.h"
#include "common/metrics/registry.h"
#include "kvstore/client/pool_node.h"
#include "kvstore/core/admission.h"
#include "kvstore/directory/subscriber.h"
#include "kvstore/server/adopter.h"

namespace tarn::kvstore {

struct StoreOptions {
  std::string node_id;
  v1::ModelDescriptor model;  // whose blocks it keeps
  uint64_t dram_bytes = 0;
  std::string ssd_path;  // empty: no SSD tier
  uint64_t ssd_bytes = 0;
  HostPort listen;  // of the handshake service
  std::string advertise_host;
  std::vector<std::string> directories;
  std::string transports;
  std::string rdma_devices;
  int data_port = 0;
  metrics::Registry* registry = nullptr;  // outlives the store
};

// Made and destroyed on any thread but the node's loop. Both block.
class Store {
 public:
  // INVALID_ARGUMENT, RESOURCE_EXHAUSTED: as PoolNode.
  static absl::StatusOr<std::unique_ptr<Store>> Start(const StoreOptions& options);
  ~Store();

 private:
  explicit Store(std::unique_ptr<PoolNode> node) : node_(std::move(node)) {}
  void StartAdopting(const StoreOptions& options);

  const std::unique_ptr<PoolNode> node_;
  std::vector<StoreView> Stores() const;

  // A second copy of everything, at the store whose turn it is; what two nodes have already is safe
  // without one.
  std::unique_ptr<const PlacedAdmission> admission_;
  std::unique_ptr<Adopter> adopter_;                 // on the node's loop
  std::unique_ptr<DirectorySubscriber> subscriber_;  // on the node's loop
};

}  // namespace tarn::kvstore
