#pragma once

// What tarn-prefill can be told, checked before anything starts.

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/config/command_line.h"
#include "common/config/server_flags.h"
#include "engine/factory/model_factory.h"
#include "kvstore/client/pool_flags.h"
#include "kvstore/client/pool_node.h"
#include "prefill_node/session/prefill_sessions.h"

namespace tarn::prefill {

struct PrefillConfig {
  ServerFlags server;
  engine::ModelOptions model;
  PrefillOptions sessions;

  kvstore::PoolFlags pool;
  uint64_t kv_memory = uint64_t{1} << 30;
  // For requests under way when the server is told to stop. With what follows (see Stop) it stays
  // below the 30 s that Kubernetes gives by default.
  absl::Duration drain_timeout = absl::Seconds(20);
};

void AddFlags(CommandLine& command_line, PrefillConfig& config);

// INVALID_ARGUMENT names the flag.
absl::StatusOr<kvstore::PoolNodeOptions> PoolOptionsFrom(const PrefillConfig& config,
                                                         const engine::OpenedModel& model);

}  // namespace tarn::prefill
