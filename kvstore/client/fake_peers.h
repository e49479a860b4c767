#pragma once

// A PeerDirectory for tests in one process: a map instead of handshakes.

#include <map>
#include <string>
#include <utility>

#include "common/base/status.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/client/peer_directory.h"

namespace tarn::kvstore {

// The nodes of a test by name; whoever makes or ends a node keeps it. `pools`: those that others
// may ask to stage blocks.
struct FakeCluster : std::map<std::string, PeerAddress> {
  std::map<std::string, NodePool*> pools;
};

// Knows every node of the cluster, in any life. The handshake takes one turn of the loop. The
// pointers outlive it. Loop-only.
class FakePeers : public PeerDirectory {
 public:
  FakePeers(EventLoop* loop, Transport* transport, const FakeCluster* cluster)
      : loop_(loop), transport_(transport), cluster_(cluster) {}

  void Resolve(const BlockSource& source, absl::Time, Done done) override {
    loop_->Post([this, node = source.node.value(), done = std::move(done)] { done(Find(node)); });
  }
  void Stage(const BlockSource& source, const BlockKey& key, absl::Time deadline,
             StageDone done) override {
    loop_->Post([this, node = source.node.value(), key, deadline, done = std::move(done)] {
      auto pool = cluster_->pools.find(node);
      if (pool == cluster_->pools.end()) return done(absl::UnavailableError("no node " + node));
      pool->second->Stage(key, deadline, [done](const absl::StatusOr<NodePool::StagedBlock>& at) {
        at.ok() ? done(at->address) : done(at.status());
      });
    });
  }
  void Forget(const BlockSource& source) override {
    ++forgotten_;
    peers_.erase(source.node.value());
  }
  int forgotten() const { return forgotten_; }

 private:
  absl::StatusOr<PeerId> Find(const std::string& node) {
    auto known = peers_.find(node);
    if (known != peers_.end()) return known->second;
    auto it = cluster_->find(node);
    if (it == cluster_->end()) return absl::UnavailableError("no node " + node);
    ASSIGN_OR_RETURN(PeerId peer, transport_->Connect(it->second));
    peers_[node] = peer;
    return peer;
  }

  EventLoop* const loop_;
  Transport* const transport_;
  const FakeCluster* const cluster_;
  std::map<std::string, PeerId> peers_;
  int forgotten_ = 0;
};

}  // namespace tarn::kvstore
