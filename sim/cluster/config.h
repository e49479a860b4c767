#pragma once

// Which cluster is simulated. Plain values.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "sim/cost/hardware.h"
#include "sim/cost/model_shape.h"

namespace tarn::sim {

// How the router picks who reads a prompt. Decode nodes are chosen by router::Choose in all cases.
enum class RouterPolicy : uint8_t {
  kTarn,           // router::Choose
  kRandom,         // any node
  kLeastLoad,      // the shortest queue, caches not looked at
  kLocalCache,     // the least queue + computing of what the node itself does not hold
  kLongestPrefix,  // who holds most of it, however busy; ties by queue
};

// What happens to a request that the cluster may not serve in time.
enum class Rejection : uint8_t {
  kNever,         // it waits: at the router for a decode seat, at the node for its turn
  kLate,          // accepted always, rejected after prefill if there is no decode seat then
  kByLoad,        // as kLate, and rejected on arrival if queues or seats are full at that moment
  kByPrediction,  // rejected on arrival if the predicted first token is too late, or there is no
                  // seat, which is kept for it from then on
};

// How a node that does both shares its steps.
enum class CoupledStep : uint8_t {
  kPrefillFirst,  // prompts stall decoding
  kChunked,       // each step: all decoding sequences, and one chunk of prompts
};

enum class Eviction : uint8_t { kLru, kLearned };

// Limits of a good request; infinite where there is none.
struct Slo {
  absl::Duration ttft = absl::InfiniteDuration();
  absl::Duration tpot = absl::InfiniteDuration();  // mean time between its tokens
};

struct ClusterConfig {
  ModelShape model;
  HardwareProfile hardware;  // of each node that computes

  // Either prefill and decode nodes, or coupled ones.
  int prefill_nodes = 0;
  int decode_nodes = 0;
  int coupled_nodes = 0;
  CoupledStep coupled_step = CoupledStep::kChunked;
  // Nodes with DRAM and SSD alone, which copy what prefill nodes compute.
  int store_nodes = 0;

  RouterPolicy policy = RouterPolicy::kTarn;
  // Whether nodes fetch each other's blocks; else each knows only its own.
  bool pool = true;
  Eviction eviction = Eviction::kLru;
  Rejection rejection = Rejection::kNever;
  Slo slo;

  int chunk_tokens = 2048;  // prompt tokens of one step
  // Sequences in one decode step; 0: as many as keep within slo.tpot at the workload's mean
  // context, with a tenth to spare.
  int max_batch = 0;
  int max_prefills = 64;  // prompts that a node fetches or computes at once

  // KV tiers of a node. Negative: what the hardware profile says.
  double dram_bytes = -1;
  double ssd_bytes = -1;
  double store_dram_bytes = 0;
  double hbm_bytes_for_kv = -1;  // negative: what the weights leave

  absl::Duration report_interval = absl::Milliseconds(250);  // of nodes' loads to the router
  absl::Duration call_latency =
      absl::Milliseconds(1);  // ingress, decision and calls; on every TTFT

  // Runs of equal decode steps are worked out at once; the outcome is the same without.
  bool skip_steps = true;
  uint64_t seed = 1;

  bool coupled() const { return coupled_nodes > 0; }
  // INVALID_ARGUMENT says what does not fit together.
  absl::Status Check() const;
};

const char* Name(RouterPolicy policy);
const char* Name(Rejection rejection);

}  // namespace tarn::sim
