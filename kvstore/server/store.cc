#include "kvstore/server/store.h"

#include <utility>

#include "common/base/status.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {

absl::StatusOr<std::unique_ptr<Store>> Store::Start(const StoreOptions& options) {
  ASSIGN_OR_RETURN(BlockLayout layout, FromProto(options.model.layout()));
  PoolNodeOptions node;
  node.node_id = options.node_id;
  node.role = v1::ROLE_STORE;
  node.model = options.model;
  node.server.listen = options.listen;
  node.advertise_host = options.advertise_host;
  node.directories = options.directories;
  node.hbm_pages = static_cast<int>(options.dram_bytes / layout.page_bytes());
  node.arena_tier = Tier::kDram;
  node.ssd_path = options.ssd_path;
  node.ssd_bytes = options.ssd_bytes;
  node.transports = options.transports;
  node.rdma_devices = options.rdma_devices;
  node.data_port = options.data_port;
  node.registry = options.registry;
  ASSIGN_OR_RETURN(std::unique_ptr<PoolNode> made, PoolNode::Create(std::move(node)));
  RETURN_IF_ERROR(made->Start({}, nullptr));
  std::unique_ptr<Store> store(new Store(std::move(made)));
  store->StartAdopting(options);
  return store;
}

void Store::StartAdopting(const StoreOptions& options) {
  node_->RunOnLoop([&] {
    AdopterOptions adopter;
    adopter.self = NodeId(options.node_id);
    admission_ = std::make_unique<PlacedAdmission>(adopter.self, ReplicationOptions());
    adopter_ = std::make_unique<Adopter>(
        adopter, node_->loop(), node_->pool(), admission_.get(),
        [this]() -> const BlockIndex& { return subscriber_->index(); },
        [this] { return Stores(); });
    ClusterListener listener;
    listener.on_block = [this](const InventoryChange& change) { adopter_->Consider(change.key); };
    DirectorySubscriberOptions directories;
    directories.directories = options.directories;
    subscriber_ = DirectorySubscriber::Start(directories, node_->loop(), std::move(listener));
  });
}

// As the directory knows them, so that all stores see nearly the same.
std::vector<StoreView> Store::Stores() const {
  const NodePoolStats own = node_->pool()->Stats();
  const double own_weight = PlacementWeight(own.hbm_pages, own.hbm_free);
  std::vector<StoreView> stores{{NodeId(node_->info().node_id()), own_weight}};
  for (const auto& [id, node] : subscriber_->nodes()) {
    if (node.info.role() != v1::ROLE_STORE || node.load.draining() || id == stores[0].node)
      continue;
    // One that has said nothing yet is taken to be like this one.
    const bool reported = node.load.dram_pages() > 0;
    stores.push_back({id, reported ? PlacementWeight(static_cast<int>(node.load.dram_pages()),
                                                     static_cast<int>(node.load.dram_pages_free()))
                                   : own_weight});
  }
  return stores;
}

Store::~Store() {
  node_->Drain();
  node_->RunOnLoop([this] {
    subscriber_.reset();
    adopter_.reset();
  });
  node_->Shutdown(absl::ZeroDuration());
}

}  // namespace tarn::kvstore
