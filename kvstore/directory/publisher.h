#pragma once

// Tells directories what this node holds and how loaded it is.
//
// One stream to each directory, each with its own numbers: a snapshot first, then what changed,
// batched for a few milliseconds. A lost stream is opened again after at most a second, with a new
// snapshot.
//
// Loop-only, construction and destruction too. Nothing blocks.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/runtime/event_loop.h"
#include "kvstore/core/types.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

struct InventoryPublisherOptions {
  std::vector<std::string> directories;  // "host:port"; none: publishes nothing
  v1::NodeInfo info;
  absl::Duration batch_delay = absl::Milliseconds(3);
  absl::Duration load_interval = absl::Milliseconds(150);
  absl::Duration max_backoff = absl::Seconds(1);
};

class InventoryPublisher {
 public:
  // What the node says of itself; called on the loop every load_interval.
  using LoadSource = std::function<v1::NodeLoad()>;

  // Everything that the node holds; from then on changes go to the listener, and to none before it.
  // Called with nullptr at the end. See NodePool::Inventory.
  using Listener = std::function<void(const InventoryChange&)>;
  using InventorySource = std::function<std::vector<InventoryChange>(Listener)>;

  // Connects at once. `loop` and what `inventory` needs outlive the publisher.
  static std::unique_ptr<InventoryPublisher> Start(InventoryPublisherOptions options,
                                                   EventLoop* loop, InventorySource inventory,
                                                   LoadSource load);
  virtual ~InventoryPublisher() = default;

  // How many directories have acknowledged a snapshot on their present stream.
  virtual int synced() const = 0;

  // Says goodbye to all directories, which drop the node at once; calls `done` when they know, or
  // after `grace`. Nothing is published afterwards.
  virtual void Leave(absl::Duration grace, std::function<void()> done) = 0;
};

}  // namespace tarn::kvstore
