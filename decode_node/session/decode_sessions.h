#pragma once

// Serves routers' decode streams: promises pages for whole answers, pulls blocks straight into its
// own pages as they become ready, and generates tokens in one batch.
//
// The Scheduler decides; this class does. A request lives from its DecodeAdmit to its last token,
// its failure, its deadline, or the end of its stream, and may be cancelled in any state. A block
// that cannot be pulled is computed here. What a running step still touches stays until the step
// has ended.
//
// Each router gets one message a step, with all its requests' tokens.
//
// Loop-only; nothing blocks. Pool, runner and metrics outlive it. Destroy it on the loop or after
// the loop has stopped, with the runner stopped: then no step points into it.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "decode_node/scheduling/scheduler.h"
#include "decode_node/session/decode_metrics.h"
#include "decode_node/session/decode_request.h"
#include "engine/executor.h"
#include "engine/runner/step_runner.h"
#include "kvstore/client/node_pool.h"
#include "proto/common.pb.h"
#include "proto/decode.pb.h"

namespace tarn::decode {

struct DecodeOptions {
  SchedulerOptions scheduling;
  absl::Duration default_timeout = absl::Minutes(10);
  // Blocks that are not here by then, from their announcement, are tried elsewhere or computed.
  absl::Duration pull_timeout = absl::Seconds(3);
};

class DecodeSessions {
 public:
  using Events = Stream<v1::DecodeEvents>;

  DecodeSessions(DecodeOptions options, EventLoop* loop, kvstore::NodePool* pool,
                 engine::StepRunner* runner, engine::ModelInfo model, DecodeMetrics* metrics);
  ~DecodeSessions();

  // A router's stream has opened. Its requests end with it.
  StreamHandler<v1::DecodeCommand> Open(std::shared_ptr<Events> stream);

  // From now on new requests are refused as UNAVAILABLE.
  void Drain();
  // Whether no request is here, and no step runs over one that has left.
  bool idle() const { return seats_.empty() && leaving_.empty(); }
  // Ends all requests with this error.
  void FailAll(const absl::Status& status);

  // What the role knows; the pool's figures are not in it.
  v1::NodeLoad Load() const;

 private:
  struct Seat;
  struct Router {
    std::shared_ptr<Events> stream;
    std::map<uint64_t, SequenceId> requests;  // by the router's request id
    v1::DecodeEvents outbox;
  };
  struct InStep {
    Seat* seat;
    StepItem item;
  };
  using RouterId = uint64_t;
  using Acquired = std::vector<absl::StatusOr<kvstore::AcquiredBlock>>;

  void OnCommand(RouterId router, const v1::DecodeCommand& command);
  void OnClosed(RouterId router);
  void Admit(RouterId router, uint64_t request_id, const v1::DecodeAdmit& admit);
  absl::StatusOr<std::unique_ptr<Seat>> MakeSeat(const v1::DecodeAdmit& admit);

  // Blocks on their way here.
  void PullLocal(Seat& seat);
  absl::Status OnBlocks(Seat& seat, const v1::BlocksReady& ready);
  absl::Status OnBlock(Seat& seat, int block, const v1::ReadyBlock& ready,
                       std::vector<int>& wanted);
  void Pull(Seat& seat, std::vector<int> blocks);
  void OnPulled(SequenceId id, uint64_t pull, const std::vector<int>& blocks, Acquired acquired);
  void Take(Seat& seat, int block, kvstore::AcquiredBlock acquired);

  void Start(Seat& seat, const v1::DecodeStart& start);
  // Joins the batch if nothing is on its way any more.
  void TryJoin(Seat& seat);
  void ReportHandover(Seat& seat, int recomputed);

  // Does whatever can be done now, then sends what there is to say.
  void Pump();
  void EndExpired();
  void StartStep();
  void OnStep(engine::StepResult result);
  void FailStep(const std::vector<InStep>& step, const absl::Status& status);
  void OnItem(const InStep& part, const engine::StepOutput& output);
  void Finish(SequenceId id, FinishReason reason);
  void RearmTimer();
  void Flush();

  void Refuse(RouterId router, uint64_t request_id, const absl::Status& status);
  void Fail(SequenceId id, const absl::Status& status);
  // Ends a request that the scheduler knows; Detach: one that it has forgotten.
  void Drop(SequenceId id);
  void Detach(SequenceId id);
  v1::DecodeEvent* AddEvent(RouterId router, uint64_t request_id);

  const DecodeOptions options_;
  EventLoop* const loop_;
  kvstore::NodePool* const pool_;
  engine::StepRunner* const runner_;
  const engine::ModelInfo model_;
  DecodeMetrics* const metrics_;

  Scheduler scheduler_;
  RouterId last_router_ = 0;
  std::map<RouterId, Router> routers_;
  std::map<SequenceId, std::unique_ptr<Seat>> seats_;
  std::vector<std::unique_ptr<Seat>> leaving_;  // ended, but in the running step
  std::vector<InStep> step_;                    // the running one
  bool draining_ = false;
  uint64_t prompt_tokens_ = 0, hit_tokens_ = 0;
  TimerId timer_ = 0;
};

}  // namespace tarn::decode
