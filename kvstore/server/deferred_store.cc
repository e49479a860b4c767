#include "kvstore/server/deferred_store.h"

#include <glog/logging.h>

#include <utility>

#include "common/runtime/post_and_wait.h"

namespace tarn::kvstore {

DeferredStore::DeferredStore(PoolNodeOptions options) : options_(std::move(options)) {
  loop_.Post([this] {
    DirectorySubscriberOptions directories;
    directories.directories = options_.directories;
    directories.without_blocks = true;
    ClusterListener listener;
    listener.on_joined = [this](const ClusterNode& node) { OnJoined(node); };
    first_node_ = DirectorySubscriber::Start(directories, &loop_, std::move(listener));
  });
}

void DeferredStore::OnJoined(const ClusterNode& node) {
  if (model_found_ || !node.info.has_model() || node.info.role() == v1::ROLE_STORE) return;
  model_found_ = true;
  options_.model = node.info.model();
  // Later: this runs inside the subscriber, which goes first.
  loop_.Post([this] { StartStore(); });
}

void DeferredStore::StartStore() {
  first_node_.reset();
  if (leaving_) return;
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Start(options_);
  if (store.ok()) {
    store_ = std::move(*store);
  } else {
    LOG(ERROR) << "the store of " << options_.node_id << " cannot start: " << store.status();
  }
}

void DeferredStore::Drain(absl::Duration limit) {
  RunOnLoop(loop_, [&] {
    leaving_ = true;
    first_node_.reset();
    if (store_ != nullptr) store_->Drain(limit);
  });
}

DeferredStore::~DeferredStore() {
  RunOnLoop(loop_, [this] { first_node_.reset(); });
  loop_.Stop();
}

}  // namespace tarn::kvstore
