#pragma once

// A store that starts when the first node joins: only then it is known which model's blocks to
// keep, and into which pages to cut the slab.

#include <memory>

#include "common/runtime/real/real_event_loop.h"
#include "kvstore/directory/subscriber.h"
#include "kvstore/server/store.h"

namespace tarn::kvstore {

// Made and destroyed on any thread; the destructor blocks until the store has gone. A store that
// cannot start is logged, and there is none.
class DeferredStore {
 public:
  // Follows options.directories. `options.model` is taken from the first node that is no store.
  explicit DeferredStore(PoolNodeOptions options);
  ~DeferredStore();

  // Store::Drain, if there is one; no new one starts. Blocks.
  void Drain(absl::Duration limit);

 private:
  void OnJoined(const ClusterNode& node);
  void StartStore();

  PoolNodeOptions options_;            // on loop_
  RealEventLoop loop_{"store-setup"};  // where making the store may block
  // On loop_.
  std::unique_ptr<DirectorySubscriber> first_node_;
  bool model_found_ = false;
  bool leaving_ = false;
  std::unique_ptr<Store> store_;
};

}  // namespace tarn::kvstore
