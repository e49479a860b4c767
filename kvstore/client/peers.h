#pragma once

// The PeerDirectory of a real node: handshakes through the peers' Pool service.
//
// One handshake for each life of a peer; all who ask meanwhile wait for it, and are told
// UNAVAILABLE at the deadline of the first. A peer whose model or layout differs is refused. A
// failure is remembered for a second, so that the many blocks of a dead node do not each wait for
// it.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/peer_directory.h"
#include "kvstore/client/stage_calls.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

struct PeersStats {
  size_t connected = 0;   // peers
  size_t handshakes = 0;  // under way
  size_t stagings = 0;    // calls under way
  uint64_t failures = 0;  // handshakes and connects that failed or took too long
  uint64_t skips = 0;     // Resolves that were answered from a remembered failure
};

// Loop-only. Destroy it on `loop` after all pulls and handshakes have ended.
class Peers : public PeerDirectory {
 public:
  // `connect_loops` are other threads, on which transport->Connect may wait; as many peers that do
  // not answer delay nobody else. At least one. All outlive this object.
  Peers(EventLoop* loop, const std::vector<EventLoop*>& connect_loops, Transport* transport);
  ~Peers() override;

  // Who this node is. Until it is set nobody can be resolved.
  void SetSelf(v1::NodeInfo self) { self_ = std::move(self); }

  void Resolve(const BlockSource& source, absl::Time deadline, Done done) override;
  void Stage(const BlockSource& source, const BlockKey& key, absl::Time deadline,
             StageDone done) override;
  void Forget(const BlockSource& source) override;

  PeersStats Stats() const;

 private:
  using Life = std::pair<NodeId, Incarnation>;
  struct Entry {
    uint64_t attempt = 0;  // tells a late answer from one that is still wanted
    bool connected = false;
    PeerId peer;
    std::vector<Done> waiting;
    std::unique_ptr<v1::Pool::Stub> stub;
    std::function<void()> cancel_call;
    TimerId timer = 0;
  };
  struct Failure {
    absl::Status status;
    absl::Time forget_at;
  };
  // A thread for connects, and how many it has to do.
  struct Connector {
    EventLoop* loop = nullptr;
    int pending = 0;
  };

  // Null if there is none, or it is too old.
  const Failure* RecentFailure(const Life& life) const;
  void Remember(const Life& life, const absl::Status& failure);
  void Handshake(const Life& life, Entry& entry, const std::string& address, absl::Time deadline);
  void OnResponse(const Life& life, uint64_t attempt,
                  absl::StatusOr<v1::HandshakeResponse> response);
  void Connect(const Life& life, uint64_t attempt, PeerAddress address);
  void OnDeadline(const Life& life, uint64_t attempt);
  absl::Status Check(const Life& life, const v1::HandshakeResponse& response) const;
  void OnConnected(const Life& life, uint64_t attempt, absl::StatusOr<PeerId> peer);
  void Finish(const Life& life, absl::StatusOr<PeerId> peer);
  // Null if the attempt is not wanted any more.
  Entry* Find(const Life& life, uint64_t attempt);

  EventLoop* const loop_;
  Transport* const transport_;
  v1::NodeInfo self_;
  uint64_t last_attempt_ = 0;
  std::map<Life, Entry> entries_;
  std::map<Life, Failure> failures_;
  std::vector<Connector> connectors_;
  StageCalls stage_calls_;
  PeersStats counters_;  // without `connected`
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
