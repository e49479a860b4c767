#pragma once

// A directory's view of the cluster, kept up to date in this process: who is there, how loaded, and
// who holds which block.
//
// Follows one of several directories. The first state is in use as it comes. When that directory is
// lost, the last state stays in use until another has sent all it knows; then that state replaces
// it at once. So a restart of a directory, or of all of them, shows as nothing, and a cluster that
// has changed meanwhile as the difference.
//
// Loop-only, construction and destruction too; callbacks run on the loop. Nothing blocks.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/runtime/event_loop.h"
#include "kvstore/directory/block_index.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

struct ClusterNode {
  v1::NodeInfo info;
  v1::NodeLoad load;                          // empty until the node has sent some
  absl::Time load_at = absl::InfinitePast();  // when it came here
};

struct DirectorySubscriberOptions {
  std::vector<std::string> directories;  // "host:port", best first; at least one
  bool without_blocks = false;           // membership and load only: the index stays empty
  // Of index(). While another directory is caught up with, there are two of that size.
  BlockIndexOptions index;
  absl::Duration reconnect_backoff = absl::Milliseconds(200);
};

// Any may be empty. A node's new life is OnLeft of the old one, then OnJoined.
struct ClusterListener {
  std::function<void(const ClusterNode&)> on_joined;
  std::function<void(const NodeId&, Incarnation)> on_left;
  std::function<void(const ClusterNode&)> on_load;
  // This node has this block now, as far as index() knows. When a new state replaces another one:
  // the last 65536 blocks that were told of while it came. Traits are there only where the node has
  // just told of the block: directories keep none.
  std::function<void(const NodeId&, const InventoryChange&)> on_block;
};

class DirectorySubscriber {
 public:
  // Connects at once. `loop` outlives the subscriber.
  static std::unique_ptr<DirectorySubscriber> Start(DirectorySubscriberOptions options,
                                                    EventLoop* loop, ClusterListener listener);
  virtual ~DirectorySubscriber() = default;

  // The references are good until the loop's next task.
  virtual const BlockIndex& index() const = 0;
  virtual const std::map<NodeId, ClusterNode>& nodes() const = 0;

  // Whether a whole state has been seen since the start.
  virtual bool has_state() const = 0;
  // Whether a directory is followed now, and has sent all it knows.
  virtual bool current() const = 0;
};

}  // namespace tarn::kvstore
