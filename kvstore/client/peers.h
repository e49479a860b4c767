#pragma once

// The PeerDirectory of a real node: handshakes through the peers' Pool service.
//
// One handshake for each life of a peer; all who ask meanwhile wait for it. A peer whose model or
// layout differs is refused. Failures are not kept: the next Resolve tries again.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/peer_directory.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

// Loop-only. Destroy it on `loop` after all pulls have ended.
class Peers : public PeerDirectory {
 public:
  // `blocking_loop` is another thread, on which transport->Connect may wait. All outlive this
  // object.
  Peers(EventLoop* loop, EventLoop* blocking_loop, Transport* transport);

  // Who this node is. Until it is set nobody can be resolved.
  void SetSelf(v1::NodeInfo self) { self_ = std::move(self); }

  void Resolve(const BlockSource& source, absl::Time deadline, Done done) override;
  void Forget(const BlockSource& source) override;

  // Peers that are connected.
  size_t connected() const;

 private:
  using Life = std::pair<NodeId, Incarnation>;
  struct Entry {
    uint64_t attempt = 0;  // tells a late answer from one that is still wanted
    bool connected = false;
    PeerId peer;
    std::vector<Done> waiting;
    std::unique_ptr<v1::Pool::Stub> stub;
    std::function<void()> cancel_call;
  };

  void Handshake(const Life& life, Entry& entry, const std::string& address,
                 absl::Duration timeout);
  void OnResponse(const Life& life, uint64_t attempt,
                  absl::StatusOr<v1::HandshakeResponse> response);
  absl::Status Check(const Life& life, const v1::HandshakeResponse& response) const;
  void OnConnected(const Life& life, uint64_t attempt, absl::StatusOr<PeerId> peer);
  void Finish(const Life& life, absl::StatusOr<PeerId> peer);
  // Null if the attempt is not wanted any more.
  Entry* Find(const Life& life, uint64_t attempt);

  EventLoop* const loop_;
  EventLoop* const blocking_loop_;
  Transport* const transport_;
  v1::NodeInfo self_;
  uint64_t last_attempt_ = 0;
  std::map<Life, Entry> entries_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
