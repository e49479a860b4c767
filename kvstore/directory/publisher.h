#pragma once

// Tells directories what this node holds and how loaded it is.
//
// One stream to each directory, each with its own numbers: a snapshot first, in parts of a few
// thousand blocks with at most a few megabytes under way, so that neither the loop nor memory
// notices how large it is; then, and in between, what changed, batched for a few milliseconds. A
// lost stream is opened again after at most a second, with a new snapshot.
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

  using Listener = std::function<void(const InventoryChange&)>;
  // Where blocks are told from. See NodePool::ListenToInventory and ReadInventory.
  struct Inventory {
    // Every change goes to the listener from now on; called with nullptr at the end.
    std::function<void(Listener)> listen;
    // Adds what `max` places from `cursor` on hold now; gives the next cursor, 0 at the end.
    std::function<uint64_t(uint64_t cursor, int max, std::vector<InventoryChange>* blocks)> read;
  };

  // Connects at once. `loop` and what `inventory` needs outlive the publisher.
  static std::unique_ptr<InventoryPublisher> Start(InventoryPublisherOptions options,
                                                   EventLoop* loop, Inventory inventory,
                                                   LoadSource load);
  virtual ~InventoryPublisher() = default;

  // How many directories have acknowledged a snapshot on their present stream.
  virtual int synced() const = 0;

  // Sends the load now: what it says may not wait for its turn.
  virtual void TellLoad() = 0;

  // Says goodbye to all directories, which drop the node at once; calls `done` when they know, or
  // after `grace`. Nothing is published afterwards.
  virtual void Leave(absl::Duration grace, std::function<void()> done) = 0;
};

}  // namespace tarn::kvstore
