#pragma once

// Serves routers' prefill streams: reserves pages, fetches what is cached, computes the rest in
// chunks, announces blocks as they become ready, and keeps them pinned until they are handed over.
//
// The Batcher decides; this class does. A request lives from its PrefillStart to its release, its
// failure, its deadlines, or the end of its stream, and may be cancelled in any state. What a
// running step still touches stays until the step has ended.
//
// Loop-only; nothing blocks. Pool, runner and metrics outlive it. Destroy it on the loop or after
// the loop has stopped, with the runner stopped: then no step points into it.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "engine/executor.h"
#include "engine/runner/step_runner.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/core/fetch_plan.h"
#include "prefill_node/batching/batcher.h"
#include "prefill_node/session/prefill_metrics.h"
#include "prefill_node/session/prefill_request.h"
#include "proto/common.pb.h"
#include "proto/prefill.pb.h"

namespace tarn::prefill {

struct PrefillOptions {
  BatcherOptions batching;
  RequestDefaults defaults;
  // Cached blocks that are not here by then are computed; earlier, when computing them would have
  // taken less, but not before `least_fetch_timeout`.
  absl::Duration fetch_timeout = absl::Seconds(3);
  absl::Duration least_fetch_timeout = absl::Milliseconds(50);
  // How often pages are asked for while none were to be had.
  absl::Duration reserve_retry = absl::Milliseconds(10);
};

class PrefillSessions {
 public:
  using Events = Stream<v1::PrefillEvents>;

  // `self`: who blocks are announced as; read when they are, outlives this object.
  PrefillSessions(PrefillOptions options, EventLoop* loop, kvstore::NodePool* pool,
                  engine::StepRunner* runner, engine::ModelInfo model, const v1::NodeInfo* self,
                  PrefillMetrics* metrics);
  ~PrefillSessions();

  // A router's stream has opened. Its requests end with it.
  StreamHandler<v1::PrefillCommand> Open(std::shared_ptr<Events> stream);

  // From now on new requests are refused as UNAVAILABLE.
  void Drain();
  // Whether no request is here, and no step runs.
  bool idle() const { return jobs_.empty() && leaving_.empty(); }
  // Ends all requests with this error; those that are being handed over without a word.
  void FailAll(const absl::Status& status);

  // What the role knows; the pool's figures are not in it.
  v1::NodeLoad Load() const;

 private:
  struct Job;
  struct Router {
    std::shared_ptr<Events> stream;
    std::map<uint64_t, JobId> jobs;  // by the router's request id
    v1::PrefillEvents outbox;
  };
  struct InStep {
    Job* job;
    Chunk chunk;
  };
  using RouterId = uint64_t;

  void OnCommand(RouterId router, const v1::PrefillCommand& command);
  void OnClosed(RouterId router);
  void Start(RouterId router, uint64_t request_id, const v1::PrefillStart& start);
  absl::StatusOr<JobId> Admit(RouterId router, uint64_t request_id, const v1::PrefillStart& start);

  // Does whatever can be done now, then sends what there is to say.
  void Pump();
  void EndExpired();
  void ReserveForWaiting();
  bool Reserve(Job& job);
  kvstore::FetchPlan PlanFetch(const Job& job) const;
  void Fetch(Job& job);
  void OnFetched(JobId id, std::vector<absl::StatusOr<kvstore::AcquiredBlock>> blocks);
  void StartComputing(Job& job);
  void StartStep();
  void OnStep(engine::StepResult result);
  void FailStep(const std::vector<InStep>& step, const absl::Status& status);
  void OnChunk(const InStep& part, const engine::StepOutput& output);
  void Announce(Job& job);
  void Finish(Job& job, const engine::SampledToken& token);
  void RearmTimer();
  void Flush();

  void Refuse(RouterId router, uint64_t request_id, const absl::Status& status);
  void Fail(JobId id, const absl::Status& status, const char* outcome);
  // Ends a job that the batcher knows; Detach: one that it has forgotten.
  void Drop(JobId id);
  void Detach(JobId id);
  v1::PrefillEvent* AddEvent(RouterId router, uint64_t request_id);

  const PrefillOptions options_;
  EventLoop* const loop_;
  kvstore::NodePool* const pool_;
  engine::StepRunner* const runner_;
  const engine::ModelInfo model_;
  const v1::NodeInfo* const self_;
  PrefillMetrics* const metrics_;

  Batcher batcher_;
  RouterId last_router_ = 0;
  std::map<RouterId, Router> routers_;
  std::map<JobId, std::unique_ptr<Job>> jobs_;
  std::vector<std::unique_ptr<Job>> leaving_;  // ended, but in the running step
  std::vector<InStep> step_;                   // the running one
  bool short_of_pages_ = false;
  bool draining_ = false;
  uint64_t prompt_tokens_ = 0, hit_tokens_ = 0;
  TimerId timer_ = 0;
};

}  // namespace tarn::prefill
