#pragma once

// Asks other nodes to stage blocks: what is asked of one node in one turn of the loop goes in one
// call.
//
// Loop-only. Calls that are under way when it goes are cancelled, and nobody is told.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/rpc/unary.h"
#include "common/runtime/event_loop.h"
#include "kvstore/client/peer_directory.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

// What one call may ask for; the server refuses more.
inline constexpr int kMaxStageKeys = 256;

class StageCalls {
 public:
  using Done = PeerDirectory::StageDone;

  explicit StageCalls(EventLoop* loop) : loop_(loop) {}
  StageCalls(const StageCalls&) = delete;
  StageCalls& operator=(const StageCalls&) = delete;
  ~StageCalls();

  // `address`: of the node's Pool service. UNAVAILABLE, DEADLINE_EXCEEDED, or what the node says.
  void Stage(const std::string& address, const BlockKey& key, absl::Time deadline, Done done);

  int in_flight() const { return static_cast<int>(calls_.size()); }

 private:
  struct Batch {
    std::vector<BlockKey> keys;
    std::vector<Done> done;
    absl::Time deadline = absl::InfinitePast();
  };
  void Send();
  void Call(const std::string& address, Batch batch);
  static void Deliver(const Batch& batch, const absl::StatusOr<v1::StageResponse>& response);

  EventLoop* const loop_;
  std::map<std::string, std::vector<Batch>> waiting_;  // by address, until the turn ends
  std::map<uint64_t, CancelCall> calls_;
  // One channel a node, for as long as somebody asks now and then.
  std::map<std::string, std::unique_ptr<v1::Pool::Stub>> stubs_;
  uint64_t last_call_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tarn::kvstore
