#pragma once

// One request under way: performs what its RequestState decides, through the sessions with the
// nodes, and keeps the report. Owned by the frontend that asked (it is the Generation); the
// cluster's table points to it until it has ended. Loop-only.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "common/runtime/event_loop.h"
#include "kvstore/directory/block_index.h"
#include "proto/decode.pb.h"
#include "proto/prefill.pb.h"
#include "router/policy/choose.h"
#include "router/policy/fair_queue.h"
#include "router/session/cluster_nodes.h"
#include "router/session/commands.h"
#include "router/session/gateway.h"
#include "router/session/request_state.h"
#include "router/session/router_metrics.h"

namespace tarn::router {

struct RequestOptions {
  RequestLimits limits;
  absl::Duration handover_timeout = absl::Seconds(30);
  int max_sources = 2;  // of a block in a load plan
  // New requests wait in the router while every prefill node has predicted work for longer.
  absl::Duration max_node_queue = absl::Milliseconds(500);
};

class ActiveRequest;

// What the cluster lends to its requests; outlives them, or detaches them.
struct RequestContext {
  EventLoop* loop = nullptr;
  ClusterNodes* nodes = nullptr;
  RouterMetrics* metrics = nullptr;
  Random* random = nullptr;
  FairQueue* queue = nullptr;  // of requests that wait
  RequestOptions options;
  std::function<const kvstore::BlockIndex&()> index;
  // The running request of this id, or null.
  std::function<ActiveRequest*(RequestId)> find;
  std::function<void(RequestId)> ended;
  // The first of the queue may perhaps start, now or after this.
  std::function<void(absl::Duration)> pump;
};

// A leg's id on the wire: the request's in the upper bits, the leg's number in the lowest eight.
inline constexpr int kLegBits = 8;
inline RequestId WireId(RequestId request, Leg leg) { return RequestId(request.value() | leg); }
inline RequestId RequestOf(uint64_t wire_id) {
  return RequestId(wire_id & ~((uint64_t{1} << kLegBits) - 1));
}
inline Leg LegOf(uint64_t wire_id) {
  return static_cast<Leg>(wire_id & ((uint64_t{1} << kLegBits) - 1));
}

class ActiveRequest : public Generation {
 public:
  // The lowest kLegBits of `id` are 0.
  ActiveRequest(const RequestContext* context, RequestId id, GenerationRequest request,
                GenerationSink* sink);
  ~ActiveRequest() override;

  GenerationReport Report() const override;

  // Each may end the request, and the client may then destroy it.
  void Begin();
  // Ends it without any node.
  void Refuse(const absl::Status& status, absl::Duration retry_after);
  void OnPrefillEvent(v1::PrefillEvent event);
  void OnDecodeEvent(v1::DecodeEvent event);
  // For the first of the queue: leaves it and goes on, or says how long it is to be held.
  std::optional<absl::Duration> TryStart();
  // The session with the node has ended.
  void OnNodeLost(const NodeId& node);

  // The cluster goes first: stays silent from now on.
  void Detach();

 private:
  void Handle(const Event& event);
  void Perform(const std::vector<Action>& actions);
  void Do(const action::Choose& choose);
  void Do(const action::Admit& admit);
  void Do(const action::StartPrefill& start);
  void Do(const action::RelayBlocks& relay);
  void Do(const action::StartDecode& start);
  void Do(const action::CancelDecode& cancel);
  void Do(const action::ReleasePrefill& release);
  void Do(const action::EmitTokens& emit);
  void Do(const action::Finish& finish);
  void Do(const action::Fail& fail);

  void Decide(bool wants_decode);
  RouteResult Route(bool wants_decode, int64_t tokens_ahead);
  void Enqueue(const Hold& hold);
  void ShowQueue();
  void NotePrediction(double us);
  void Follow(const RouteResult& result);
  // What others wait behind: an answer that has begun goes before all that have not.
  int QueuePriority() const;
  Slo SloLeft(absl::Time now) const;
  // Tells the view what this request no longer takes of nodes.
  void SettlePlacements();
  void Place(std::optional<NodeId>& where, const NodeId& node, const Work& work);
  void EndPlacement(std::optional<NodeId>& where);
  // A command found no session: the same as losing it right after.
  void PostEvent(const Event& event);
  void CancelTimers();
  void NoteFirstToken();
  void End(metrics::Counter& outcome);
  LegContext Context(Leg leg) const;
  absl::Time Now() const { return context_->loop->Now(); }

  const RequestContext* context_;  // null: detached
  const RequestId id_;
  const GenerationRequest request_;
  GenerationSink* const sink_;
  RequestState state_;
  bool ended_ = false;
  bool wants_decode_ = true;  // what the choice that is waited for is about
  TimerId deadline_ = 0, pause_ = 0, posted_ = 0;

  std::vector<TokenId> tokens_;  // prompt and answer so far
  std::vector<BlockKey> keys_;   // of the full blocks of tokens_, as far as they were needed
  std::optional<NodeId> prefill_placement_, decode_placement_;
  int plan_blocks_ = 0;
  v1::BlocksReady ready_;  // what RelayBlocks sends on

  GenerationReport report_;
  absl::Time begun_;
  absl::Time predicted_at_ = absl::InfinitePast();
  absl::Time first_token_ = absl::InfinitePast();
  absl::Time last_token_ = absl::InfinitePast();
  absl::Time handed_over_ = absl::InfinitePast();
};

}  // namespace tarn::router
