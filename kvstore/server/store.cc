#include "kvstore/server/store.h"

#include <utility>

#include "common/base/status.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {

absl::StatusOr<std::unique_ptr<Store>> Store::Start(PoolNodeOptions node) {
  ASSIGN_OR_RETURN(BlockLayout layout, FromProto(node.model.layout()));
  node.role = v1::ROLE_STORE;
  node.arena_tier = Tier::kDram;
  node.hbm_pages = static_cast<int>(node.dram_bytes / layout.page_bytes());
  node.dram_bytes = 0;
  const std::vector<std::string> directories = node.directories;
  ASSIGN_OR_RETURN(std::unique_ptr<PoolNode> made, PoolNode::Create(std::move(node)));
  RETURN_IF_ERROR(made->Start({}, nullptr));
  std::unique_ptr<Store> store(new Store(std::move(made)));
  store->StartAdopting(directories);
  return store;
}

void Store::StartAdopting(const std::vector<std::string>& directories) {
  node_->RunOnLoop([&] {
    AdopterOptions adopter;
    adopter.self = NodeId(node_->info().node_id());
    admission_ = std::make_unique<PlacedAdmission>(adopter.self, ReplicationOptions());
    adopter_ = std::make_unique<Adopter>(
        adopter, node_->loop(), node_->pool(), admission_.get(),
        [this]() -> const BlockIndex& { return subscriber_->index(); },
        [this](const NodePoolStats& own) { return Stores(own); });
    ClusterListener listener;
    listener.on_block = [this](const InventoryChange& change) { adopter_->Consider(change.key); };
    subscriber_ = DirectorySubscriber::Start({.directories = directories}, node_->loop(),
                                             std::move(listener));
  });
}

// As the directory knows them, so that all stores see nearly the same.
std::vector<StoreView> Store::Stores(const NodePoolStats& own) const {
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
