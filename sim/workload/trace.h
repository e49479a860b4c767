#pragma once

// Request traces in Mooncake's JSON lines, and what can be done to them before a replay. Pure but
// for ReadTrace.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tarn::sim {

// Tokens that one hash id of a trace stands for.
inline constexpr int kTraceBlockTokens = 512;

// One line: a hash id stands for `kTraceBlockTokens` tokens and all before them, so equal ids are
// equal prefixes. The last one may stand for fewer tokens.
struct TraceRequest {
  absl::Duration at;
  int input_tokens = 0;
  int output_tokens = 0;
  std::vector<int64_t> hash_ids;
};

// The first `limit` requests (0: all). INVALID_ARGUMENT names line and field.
absl::StatusOr<std::vector<TraceRequest>> ParseTrace(const std::string& jsonl, size_t limit);

// NOT_FOUND without the file; otherwise as ParseTrace.
absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path, size_t limit = 0);

// Spreads requests of one rounded arrival time evenly over the time until the next one, and the
// last ones over three seconds. Needs requests in order of arrival.
void SpreadArrivals(std::vector<TraceRequest>* requests);

}  // namespace tarn::sim
