#pragma once

// The Gateway that has a cluster behind it: the table of requests, and what feeds them.
//
//   directory ─► Joined, Left, Reported ─► ClusterNodes ─► events by request id ─► ActiveRequest
//   frontend  ─► Start ─────────────────────────────────────────────────────────► ActiveRequest
//
// Loop-only, construction and destruction too; nothing blocks. It may go before the Generations
// that it made: those then stay silent.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/runtime/event_loop.h"
#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"
#include "proto/inference.pb.h"
#include "router/session/active_request.h"
#include "router/session/cluster_nodes.h"
#include "router/session/gateway.h"
#include "router/session/node_streams.h"
#include "router/session/router_metrics.h"

namespace tarn::router {

struct ClusterOptions {
  std::string router_id = "router";
  int max_in_flight = 10'000;  // requests; one more is refused
  RequestOptions requests;
  FairQueueOptions queue;
  ReconnectPauses reconnect;
};

// What the cluster stands on; all outlives it.
struct ClusterParts {
  EventLoop* loop = nullptr;
  NodeStreams* streams = nullptr;
  RouterMetrics* metrics = nullptr;
  // Who holds which block; asked on the loop, the answer is used at once.
  std::function<const kvstore::BlockIndex&()> index;
  // Called when what Ready() says may have changed. Optional.
  std::function<void(const absl::Status&)> on_ready;
};

class Cluster : public Gateway {
 public:
  // `random` draws request ids: seed it so that no two routers draw alike.
  Cluster(const ClusterOptions& options, ClusterParts parts, Random random);
  ~Cluster() override;

  // What the directory says.
  void Joined(const v1::NodeInfo& info) { nodes_.Joined(info); }
  void Left(const NodeId& node, Incarnation incarnation) { nodes_.Left(node, incarnation); }
  void Reported(const NodeId& node, const v1::NodeLoad& load) { nodes_.Reported(node, load); }

  std::unique_ptr<Generation> Start(GenerationRequest request, GenerationSink* sink) override;
  absl::Status Ready() const override;

  // From now on new requests are refused and Ready says so; those under way go on.
  void Drain();
  size_t in_flight() const { return requests_.size(); }

  // The model that the nodes serve; nothing before the first has joined.
  const std::optional<ServedModel>& model() const { return nodes_.model(); }
  const ClusterView& view() const { return nodes_.view(); }
  v1::GetStatusResponse Status() const;
  // What would be decided for `request` now. UNAVAILABLE: no node has joined yet.
  absl::StatusOr<v1::ExplainResponse> Explain(const GenerationRequest& request) const;

 private:
  // Starts the first of the queue, as long as there is one that may; `after` this, or sooner if
  // something changes.
  void Pump();
  void PumpAfter(absl::Duration after);
  RequestContext MakeContext(const ClusterParts& parts, const RequestOptions& options);
  ClusterNodes::Listener MakeListener();
  RequestId DrawId();
  ActiveRequest* Find(RequestId id) const;
  // Why a new request cannot even begin.
  absl::Status Admissible() const;
  void NodeLost(const NodeId& node);

  const ClusterOptions options_;
  const ClusterParts parts_;
  Random random_;
  const absl::Time started_;
  absl::flat_hash_map<RequestId, ActiveRequest*> requests_;
  FairQueue queue_;
  TimerId pump_ = 0;
  absl::Time pump_at_ = absl::InfiniteFuture();
  ClusterNodes nodes_;
  const RequestContext context_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool draining_ = false;
};

}  // namespace tarn::router
