#pragma once

// The gRPC service Directory: merges all nodes' inventory streams and passes them on to
// subscribers.
//
// A node is known as long as its stream lasts; when that ends, all subscribers are told that it has
// left. A new life of a node replaces the old one. Nothing is stored: after a restart nodes and
// subscribers connect again and send what they know. A young directory knows less than its
// subscribers, so it says "caught up" only when the nodes that a subscriber knows are back, or have
// had the time for it.
//
// Blocks are kept once, in an index with a hard limit; what is beyond is refused and counted (see
// BlockIndex), but passed on to those who are subscribed. A subscriber first gets the index in
// parts, as fast as it reads, and deltas in between. One that reads too slowly is cut off with
// RESOURCE_EXHAUSTED, and starts over.
//
// gRPC's threads only hand over; all state is touched on the loop, which outlives the service. Shut
// the RPC server down first, then destroy this on the loop.

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "kvstore/directory/block_index.h"
#include "kvstore/directory/inventory.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {

struct DirectoryOptions {
  size_t max_keys_per_match = 65536;
  BlockIndexOptions index;
  // Of what one subscriber has not taken yet.
  size_t max_subscriber_bytes = size_t{256} << 20;
  // From the start on, so long a subscriber waits for nodes that it knows from before. Publishers
  // come back within a second, or a few where their machine is busy.
  absl::Duration settle_time = absl::Seconds(5);
  // So long, from the start, that is put off further by snapshots of nodes that have not ended.
  absl::Duration max_settle_time = absl::Seconds(30);
};

struct DirectoryStats {
  size_t nodes = 0, subscribers = 0;
  BlockIndexStats index;
  uint64_t updates = 0;              // messages that carried blocks
  uint64_t snapshots_requested = 0;  // after a gap
};

class DirectoryService : public v1::Directory::CallbackService {
 public:
  explicit DirectoryService(EventLoop* loop, const DirectoryOptions& options = {});
  ~DirectoryService() override;

  grpc::ServerBidiReactor<v1::InventoryUpdate, v1::InventoryAck>* Publish(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::DirectoryUpdate>* Subscribe(
      grpc::CallbackServerContext* context, const v1::SubscribeRequest* request) override;
  grpc::ServerUnaryReactor* Match(grpc::CallbackServerContext* context,
                                  const v1::MatchRequest* request,
                                  v1::MatchResponse* response) override;

  // Loop-only.
  DirectoryStats Stats() const;

 private:
  using AckStream = Stream<v1::InventoryAck>;
  using UpdateStream = Stream<v1::DirectoryUpdate>;
  struct Member {
    v1::NodeInfo info;
    v1::NodeLoad load;
    bool has_load = false;
    InventoryState inventory;
    uint64_t stream = 0;
  };
  struct Publication {
    std::shared_ptr<AckStream> stream;
    NodeId node;  // empty until its hello
  };
  struct Subscriber {
    std::shared_ptr<UpdateStream> stream;
    bool without_blocks = false;
    std::vector<NodeId> known_nodes;  // from before
    // What it gets at first.
    bool has_index = false;
    uint64_t cursor = 0;
    TimerId timer = 0;
  };

  void OnUpdate(uint64_t stream, v1::InventoryUpdate update);
  absl::Status OnHello(uint64_t stream, const v1::NodeInfo& info);
  absl::Status OnBlocks(Publication& publication, Member& member, v1::InventoryUpdate& update);
  void PassOn(const Member& member, v1::InventoryUpdate& update);
  void OnLoad(Member& member, const v1::NodeLoad& load);
  // Closes the stream; its node leaves.
  void EndPublication(uint64_t stream, absl::Status status);
  void RemoveMember(const NodeId& node);

  void Greet(uint64_t id);
  void GreetFurther(uint64_t id);
  void SendPart(Subscriber& subscriber);
  bool Settled(const Subscriber& subscriber) const;
  void Sweep();
  void Broadcast(const v1::DirectoryUpdate& update, bool is_blocks);
  absl::StatusOr<v1::MatchResponse> Answer(const v1::MatchRequest& request) const;

  EventLoop* const loop_;
  const DirectoryOptions options_;
  const absl::Time start_;

  // Loop only.
  uint64_t last_id_ = 0;
  std::map<uint64_t, Publication> publications_;
  std::map<uint64_t, Subscriber> subscribers_;
  std::map<NodeId, Member> members_;
  BlockIndex index_;
  TimerId sweep_timer_ = 0;
  uint64_t updates_ = 0;
  uint64_t snapshots_requested_ = 0;
};

}  // namespace tarn::kvstore
