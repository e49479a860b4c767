#include "kvstore/server/store.h"

#include <glog/logging.h>

#include <algorithm>
#include <future>
#include <utility>

#include "common/base/status.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kMetricsInterval = absl::Milliseconds(200);

const char* Text(HandOver::End end) {
  switch (end) {
    case HandOver::End::kNotYet:
      return "broken off";
    case HandOver::End::kAllOffered:
      return "all was offered";
    case HandOver::End::kNotWanted:
      return "nobody took any more";
    case HandOver::End::kOutOfTime:
      return "no time is left";
  }
  return "";
}

void Log(const std::string& node, const DepartureOutcome& outcome, absl::Duration time) {
  if (outcome.alone) {
    LOG(INFO) << node << ": there is no other store: leaves at once, with " << outcome.left
              << " blocks in memory";
    return;
  }
  LOG(INFO) << node << ": " << outcome.taken << " blocks that only it had were taken by others, "
            << outcome.left << " are left behind (" << Text(outcome.end) << "), after " << time;
}

}  // namespace

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

Store::Store(std::unique_ptr<PoolNode> node)
    : node_(std::move(node)), self_(node_->info().node_id()), metrics_(&node_->registry()) {}

void Store::StartAdopting(const std::vector<std::string>& directories) {
  node_->RunOnLoop([&] {
    admission_ = std::make_unique<PlacedAdmission>(self_, ReplicationOptions());
    AdopterOptions adopter;
    adopter.self = self_;
    adopter_ = std::make_unique<Adopter>(adopter, node_->loop(), node_->pool(), admission_.get(),
                                         MakeNeighbours());
    ClusterListener listener;
    listener.on_block = [this](const NodeId& node, const InventoryChange& change) {
      adopter_->Consider(node, change);
    };
    subscriber_ = DirectorySubscriber::Start({.directories = directories}, node_->loop(),
                                             std::move(listener));
    UpdateMetrics();
  });
}

Neighbours Store::MakeNeighbours() const {
  return {.index = [this]() -> const BlockIndex& { return subscriber_->index(); },
          .stores = [this](const NodePoolStats& own) { return Stores(own); },
          .about = [this](const NodeId& node) { return About(node); },
          .room = [this] { return Room(); }};
}

Neighbour Store::About(const NodeId& node) const {
  auto it = subscriber_->nodes().find(node);
  if (it == subscriber_->nodes().end()) return {};
  return {.store = it->second.info.role() == v1::ROLE_STORE, .leaving = it->second.load.draining()};
}

bool Store::IsOtherStore(const ClusterNode& node) const {
  return node.info.role() == v1::ROLE_STORE && !node.load.draining() &&
         node.info.node_id() != self_.value();
}

// As the directory knows them, so that all stores see nearly the same.
std::vector<StoreView> Store::Stores(const NodePoolStats& own) const {
  const double own_weight = PlacementWeight(own.hbm_pages, own.hbm_free);
  std::vector<StoreView> stores{{self_, own_weight}};
  for (const auto& [id, node] : subscriber_->nodes()) {
    if (!IsOtherStore(node)) continue;
    // One that has said nothing yet is taken to be like this one.
    const bool reported = node.load.dram_pages() > 0;
    stores.push_back({id, reported ? PlacementWeight(static_cast<int>(node.load.dram_pages()),
                                                     static_cast<int>(node.load.dram_pages_free()))
                                   : own_weight});
  }
  return stores;
}

// What is free, and an eighth of all, as in PlacementWeight. What is in memory is on the SSD as
// well, where there is one.
size_t Store::Room() const {
  size_t room = 0;
  for (const auto& [id, node] : subscriber_->nodes()) {
    if (!IsOtherStore(node)) continue;
    const v1::NodeLoad& load = node.load;
    const bool reported = load.dram_pages() > 0;
    const auto free = std::max<int64_t>(load.dram_pages_free(), load.ssd_pages_free());
    const auto pages = std::max<int64_t>(load.dram_pages(), load.ssd_pages());
    room += static_cast<size_t>(reported ? free + pages / 8 : node_->pool()->Stats().hbm_pages);
  }
  return room;
}

void Store::UpdateMetrics() {
  metrics_.Update(adopter_->Stats());
  metrics_timer_ = node_->loop()->PostAfter(kMetricsInterval, [this] { UpdateMetrics(); });
}

DepartureOutcome Store::Drain(absl::Duration limit) {
  node_->Drain();
  std::promise<DepartureOutcome> promise;
  const absl::Time start = node_->loop()->Now();
  node_->RunOnLoop([&] {
    adopter_->Stop();
    DepartureOptions options;
    options.self = self_;
    options.hand_over.limit = limit;
    departure_ = std::make_unique<Departure>(
        options, node_->loop(), node_->pool(), MakeNeighbours(),
        [&](const DepartureOutcome& outcome) { promise.set_value(outcome); });
  });
  const DepartureOutcome outcome = promise.get_future().get();
  Log(self_.value(), outcome, node_->loop()->Now() - start);
  node_->RunOnLoop([&] { metrics_.Left(outcome); });
  return outcome;
}

Store::~Store() {
  node_->Drain();
  node_->RunOnLoop([this] {
    node_->loop()->CancelTimer(metrics_timer_);
    departure_.reset();
    subscriber_.reset();
    adopter_.reset();
  });
  node_->Shutdown(absl::ZeroDuration());
}

}  // namespace tarn::kvstore
