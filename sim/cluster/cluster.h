#pragma once

// The whole cluster in one process under virtual time, on the real brains: router::Choose and
// ClusterView, BlockIndex, Batcher, Scheduler, BlockTable with its eviction policies, PlanFetch.
// What is modelled is what they decide about: step times (StepCost) and transfers (FairLinks).

#include "absl/status/statusor.h"
#include "sim/cluster/config.h"
#include "sim/cluster/result.h"
#include "sim/workload/workload.h"

namespace tarn::sim {

// Runs until every request has ended. Deterministic: equal arguments give equal results. Takes some
// 200 us of one core a request; memory grows with the workload. INVALID_ARGUMENT: the configuration
// does not fit together, or the model does not fit on a node.
absl::StatusOr<RunResult> Simulate(const Workload& workload, const ClusterConfig& config);

}  // namespace tarn::sim
