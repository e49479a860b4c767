#pragma once

// What a simulated cluster is asked: a trace, or sessions made up by seed. Pure values; equal
// inputs give equal workloads.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "sim/workload/trace.h"

namespace tarn::sim {

struct Workload {
  std::string name;
  std::vector<TraceRequest> requests;  // by arrival

  // First to last arrival.
  absl::Duration duration() const;
  double mean_input_tokens() const;
  double mean_output_tokens() const;
};

// A trace with its arrivals spread (SpreadArrivals). Errors as in ReadTrace.
absl::StatusOr<Workload> ReadWorkload(const std::string& path, size_t limit = 0);

// Conversations: a system prompt that many share, then turns, each of which brings the whole
// conversation so far and a new question. Sessions begin as a Poisson process; the other lengths
// and times are exponential, the number of turns geometric.
struct SessionOptions {
  absl::Duration duration = absl::Hours(1);  // in which sessions begin
  double sessions_per_second = 1;
  int system_prompts = 4;  // drawn evenly
  int system_tokens = 1024;
  double mean_turns = 3;
  double mean_question_tokens = 1500;
  double mean_answer_tokens = 300;
  absl::Duration mean_think_time = absl::Minutes(1);  // answer to next question
  int max_tokens = 128 * 1024;                        // a session ends before it
  uint64_t seed = 1;
};
Workload MakeSessions(const SessionOptions& options);

// The same requests, arriving `factor` times as fast.
Workload ScaleRate(const Workload& workload, double factor);

}  // namespace tarn::sim
