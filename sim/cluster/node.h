#pragma once

// A simulated node that computes: the real brains (Batcher, Scheduler, BlockTable, PlanFetch), with
// a cost model in the place of the executor, and links in the place of the network.
//
// A prefill node has jobs, a decode node has sequences, a coupled node both. Runs under virtual
// time: whoever owns it calls OnStepEnd when it asked for that, and the other events as they come.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "decode_node/scheduling/scheduler.h"
#include "kvstore/core/fetch_plan.h"
#include "kvstore/core/rate_meter.h"
#include "prefill_node/batching/batcher.h"
#include "router/policy/cluster_view.h"
#include "sim/cluster/config.h"
#include "sim/cluster/node_cache.h"
#include "sim/cluster/request.h"
#include "sim/cost/step_cost.h"

namespace tarn::sim {

enum class NodeKind : uint8_t { kPrefill, kDecode, kCoupled, kStore };

// What a node needs of the world around it. All calls return before what they start has happened.
class World {
 public:
  virtual ~World() = default;
  virtual absl::Time Now() const = 0;
  // Calls node.OnStepEnd(turn) then.
  virtual void WakeAt(Node* node, absl::Time when, uint64_t turn) = 0;
  // When `blocks` blocks from `source` would be at `node`, by the links' present load.
  virtual absl::Duration ExpectFetch(const Node* node, const kvstore::SourceId& source,
                                     int blocks) const = 0;
  // Brings them; calls node->OnFetched(request) at the end.
  virtual void Fetch(Node* node, Request* request, const kvstore::SourceId& source, int blocks) = 0;
  // Blocks were published: stores may copy them.
  virtual void OnPublished(Node* node, const Request& request, int first_block, int end_block) = 0;
  // The prompt is computed up to here; `last`: all of it, and its first token is known.
  virtual void OnComputed(Node* node, Request* request, int tokens, bool last) = 0;
  // The last token is out; its sequence has left the node.
  virtual void OnFinished(Node* node, Request* request) = 0;
};

struct NodeOptions {
  NodeId id;
  NodeKind kind = NodeKind::kPrefill;
  CacheSizes cache;
  Eviction eviction = Eviction::kLru;
  prefill::BatcherOptions batching;
  decode::SchedulerOptions scheduling;
  CoupledStep coupled_step = CoupledStep::kChunked;
  bool pool = true;
  bool skip_steps = true;
  int block_tokens = kTraceBlockTokens;
};

struct NodeTotals {
  absl::Duration busy;  // in steps
  double prefill_tokens = 0;
  double decode_tokens = 0;
  int64_t steps = 0;
};

class Node {
 public:
  Node(NodeOptions options, const StepCost* cost, kvstore::BlockIndex* index, World* world);

  const NodeId& id() const { return options_.id; }
  NodeKind kind() const { return options_.kind; }
  NodeCache& cache() { return cache_; }

  // Prefill and coupled nodes.
  void Prefill(Request* request);
  void OnFetched(Request* request);
  // The decode node has all it needs of it, or nobody wants it any more.
  void EndPrefill(Request* request);

  // Decode nodes. A seat and pages for the whole answer; false if they are not there.
  bool Admit(Request* request);
  // The first token is known. The sequence runs after Join, unless this was the last token.
  void Start(Request* request);
  void Join(Request* request);

  // Ignored if `turn` has been overtaken.
  void OnStepEnd(uint64_t turn);

  // What it tells routers.
  router::NodeLoad Load() const;
  // Whether something has changed since the last call.
  bool TakeChanged() { return std::exchange(changed_, false) || stepping_; }

  // Pulls from other nodes, for the measured rate.
  kvstore::RateMeter& pull_meter() { return pulls_; }
  const NodeTotals& totals() const { return totals_; }
  bool idle() const;

 private:
  struct Source {
    kvstore::SourceId id;
    int blocks = 0;
  };
  bool computes_prompts() const { return options_.kind != NodeKind::kDecode; }
  bool computes_answers() const { return options_.kind != NodeKind::kPrefill; }

  // Prompts.
  void StartPrompts();
  void BeginFetch(Request* request);
  std::vector<std::vector<kvstore::SourceId>> SourcesOf(const Request& request,
                                                        int fetchable) const;
  void Assign(Request* request, const std::vector<std::vector<kvstore::SourceId>>& sources,
              const kvstore::FetchPlan& plan, const kvstore::FetchCosts& costs);
  void Count(Request* request, const kvstore::SourceId& source);
  void Compute(Request* request);
  void PublishUpTo(Request* request, int tokens);
  void OnChunk(const prefill::Chunk& chunk);

  // Steps.
  void MaybeStep();
  bool StartMixedStep(const std::vector<prefill::Chunk>& chunks);
  void StartAlikeSteps();
  // Makes of a run of steps the one that is under way, so that the batch may change.
  void CutRun();
  void EndRun();
  void SkipRun(size_t steps);
  void AdvanceOne(const std::vector<decode::StepItem>& items);
  void Wake(absl::Duration elapsed);
  void SeatWaiting();
  void RunHere(Request* request);
  void Leave(Request* request);

  const NodeOptions options_;
  const StepCost* const cost_;
  World* const world_;

  NodeCache cache_;
  prefill::Batcher batcher_;
  decode::Scheduler scheduler_;
  std::vector<Request*> jobs_;       // by JobId
  std::vector<Request*> sequences_;  // by SequenceId
  std::vector<Request*> running_;    // in the decode batch
  std::vector<Request*> unseated_;   // coupled: computed, waits for a place in the batch
  double context_ = 0;               // tokens with KV of those that run

  // The step under way.
  bool stepping_ = false;
  uint64_t turn_ = 0;
  absl::Time step_start_;
  absl::Duration step_time_;
  std::vector<prefill::Chunk> chunks_;
  std::vector<decode::StepItem> items_;
  std::vector<absl::Duration> run_;  // steps that are alike; empty: a single step

  bool changed_ = true;
  kvstore::RateMeter pulls_;
  NodeTotals totals_;
};

}  // namespace tarn::sim
