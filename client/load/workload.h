#pragma once

// What a load run sends: synthetic prompts, or a public trace with its prefix sharing.
// Pure functions; equal seeds give equal workloads.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/load/load_runner.h"
#include "common/base/block_key.h"
#include "common/runtime/random.h"
#include "sim/workload/trace.h"

namespace tarn::client {

// Prompts of `input_tokens`, of which the first `shared_tokens` are the same for all.
struct SyntheticWorkload {
  int requests = 100;
  int input_tokens = 512;
  int output_tokens = 64;
  int shared_tokens = 0;
  double request_rate = 0;  // Poisson arrivals a second; 0: all at once (closed loop)
  int vocab_size = 0;       // ids are drawn below it
  uint64_t seed = 0;
};
std::vector<LoadRequest> MakeSyntheticLoad(const SyntheticWorkload& workload);

struct ReplayWorkload {
  // Tokens that stand for one of the trace's blocks: lengths scale by this over 512.
  int block_tokens = 512;
  // Trace seconds a second of the run; 0: all at once.
  double speed = 1;
  // Arrivals are moved by up to this, uniformly: traces round their times.
  absl::Duration jitter;
  int max_output_tokens = 0;  // 0: as scaled
  int max_context = 0;        // longer requests are cut to it; 0: none
  int vocab_size = 0;
  uint64_t seed = 0;
};

// Prompts that share prefixes exactly as the trace's hash ids do: one id gives the same tokens
// wherever it stands, and two ids differ in their first token.
std::vector<LoadRequest> MakeReplayLoad(const std::vector<sim::TraceRequest>& trace,
                                        const ReplayWorkload& workload);

}  // namespace tarn::client
