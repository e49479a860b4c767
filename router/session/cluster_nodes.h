#pragma once

// The nodes that the router works with: who is there (as the directory says), the session with
// each, and what the brain believes of them.
//
// A node that the directory stops naming gets no new work, but its session stays until it breaks: a
// directory that errs must not end running requests (I5). A new life of a node replaces the old
// one. Loop-only.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "common/runtime/event_loop.h"
#include "proto/common.pb.h"
#include "proto/inference.pb.h"
#include "router/policy/cluster_view.h"
#include "router/policy/predict.h"
#include "router/session/node_session.h"
#include "router/session/node_streams.h"

namespace tarn::router {

// What all nodes of the cluster serve.
struct ServedModel {
  v1::ModelDescriptor descriptor;
  BlockShape block;
  uint64_t layout_fingerprint = 0;

  // Where the keys of a request with this salt begin.
  BlockKey RootFor(const std::string& salt) const;
};

// Adds the keys of the full blocks of `tokens` that `keys` does not have yet.
void ExtendKeys(const ServedModel& model, const std::string& salt, std::span<const TokenId> tokens,
                std::vector<BlockKey>& keys);

class ClusterNodes {
 public:
  struct Listener {
    std::function<void(v1::PrefillEvents)> on_prefill_events;
    std::function<void(v1::DecodeEvents)> on_decode_events;
    // The session has ended, and with it all that requests held there. The view knows already.
    std::function<void(const NodeId&)> on_lost;
    // Something changed that Ready or the status may depend on.
    std::function<void()> on_changed;
  };

  // `loop` and `streams` outlive this.
  ClusterNodes(EventLoop* loop, NodeStreams* streams, const ReconnectPauses& pauses,
               Listener listener);
  ~ClusterNodes();

  void Joined(const v1::NodeInfo& info);
  void Left(const NodeId& node, Incarnation incarnation);
  void Reported(const NodeId& node, const v1::NodeLoad& load);

  // False: there is no session with the node, the command is lost.
  bool Send(const NodeId& node, v1::PrefillCommand command);
  bool Send(const NodeId& node, v1::DecodeCommand command);

  // OK: a prefill node and a decode node are there, connected and not draining.
  absl::Status Ready() const;
  // Nothing until a node with a model has joined.
  const std::optional<ServedModel>& model() const { return model_; }
  const ClusterView& view() const { return view_; }
  ClusterView& view() { return view_; }
  std::vector<v1::NodeStatus> Status() const;

 private:
  struct Node {
    v1::NodeInfo info;
    v1::NodeLoad load;
    absl::Time load_at = absl::InfinitePast();
    bool listed = true;  // by the directory
    std::unique_ptr<PrefillSession> prefill;
    std::unique_ptr<DecodeSession> decode;
    bool up() const { return (prefill && prefill->up()) || (decode && decode->up()); }
  };

  // Adopts the first node's model; FAILED_PRECONDITION says what of a later one differs.
  absl::Status AcceptModel(const v1::NodeInfo& info);
  void Enter(const NodeId& id, const Node& node);
  void OpenSession(const NodeId& id, Node& node);
  void Up(const NodeId& id);
  void Down(const NodeId& id, const absl::Status& status);
  // Forgets the node; requests that hold something there lose it.
  void Drop(const NodeId& id);

  EventLoop* const loop_;
  NodeStreams* const streams_;
  const ReconnectPauses pauses_;
  const Listener listener_;
  std::optional<ServedModel> model_;
  ClusterView view_;
  std::map<NodeId, Node> nodes_;
};

}  // namespace tarn::router
