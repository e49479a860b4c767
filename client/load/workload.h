#pragma once

// What a load run sends: synthetic prompts, or a public trace with its prefix sharing.
// Pure functions; equal seeds give equal workloads.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/load/load_runner.h"
#include "common/base/block_key.h"
#include "common/runtime/random.h"

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

// One line of a Mooncake trace. A hash id stands for `kTraceBlockTokens` tokens and all before
// them.
inline constexpr int kTraceBlockTokens = 512;
struct TraceRequest {
  absl::Duration at;
  int input_tokens = 0;
  int output_tokens = 0;
  std::vector<int64_t> hash_ids;
};
// The first `limit` requests (0: all). INVALID_ARGUMENT names line and field.
absl::StatusOr<std::vector<TraceRequest>> ParseTrace(const std::string& jsonl, size_t limit);

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
std::vector<LoadRequest> MakeReplayLoad(const std::vector<TraceRequest>& trace,
                                        const ReplayWorkload& workload);

}  // namespace tarn::client
