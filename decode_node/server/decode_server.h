#pragma once

// A whole decode node: model, pool, executor's thread, sessions, RPC and status pages.
//
// Main thread only; all calls block. The order of members is the order of construction; Stop and
// the destructor undo it with the loop still running.

#include <memory>

#include "absl/status/statusor.h"
#include "decode_node/server/decode_config.h"
#include "decode_node/server/decode_service.h"
#include "decode_node/session/decode_sessions.h"
#include "engine/executor.h"
#include "engine/runner/step_runner.h"
#include "kvstore/client/pool_node.h"

namespace tarn::decode {

class DecodeServer {
 public:
  // Loads, serves, announces. Errors name what could not be had: flag, file, port.
  static absl::StatusOr<std::unique_ptr<DecodeServer>> Start(const DecodeConfig& config);
  ~DecodeServer();

  const v1::NodeInfo& info() const { return node_->info(); }

  // Says that it drains, refuses what is new, lets requests end for `drain_timeout`, and gives up
  // the rest: routers go on with it elsewhere. Then leaves, within some eight seconds. Idempotent.
  void Stop();

 private:
  explicit DecodeServer(const DecodeConfig& config) : drain_timeout_(config.drain_timeout) {}
  absl::Status Build(const DecodeConfig& config);
  // What is left goes on elsewhere.
  void GiveUp();

  const absl::Duration drain_timeout_;
  std::unique_ptr<kvstore::PoolNode> node_;
  std::unique_ptr<engine::ModelExecutor> executor_;
  std::unique_ptr<engine::StepRunner> runner_;
  std::unique_ptr<DecodeMetrics> metrics_;
  std::unique_ptr<DecodeSessions> sessions_;  // loop only
  std::unique_ptr<DecodeService> service_;
  bool stopped_ = false;
};

}  // namespace tarn::decode
