#pragma once

// What a load run measured, with the names and meaning of `vllm bench serve`:
//   TTFT  request sent to first token;  TPOT  (E2E - TTFT) / (tokens - 1);
//   ITL   gaps between messages of tokens;  E2E  request sent to last token.
// Pure values; milliseconds, as vLLM prints them.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tarn::client {

struct RequestRecord {
  bool ok = false;
  std::string error;
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t output_tokens = 0;
  double ttft_ms = 0;
  double e2e_ms = 0;
  std::vector<double> itl_ms;
  double predicted_ttft_ms = 0;

  double tpot_ms() const {
    return output_tokens > 1 ? (e2e_ms - ttft_ms) / (output_tokens - 1) : 0;
  }
};

struct Distribution {
  double mean = 0, median = 0, p90 = 0, p99 = 0;
};

// Percentiles interpolate linearly between ranks, as NumPy does by default. Empty: zeros.
Distribution DistributionOf(std::vector<double> values);

// A request is good if it succeeded within every limit that is set (above 0).
struct Goals {
  double ttft_ms = 0, tpot_ms = 0, e2e_ms = 0;
};

struct Summary {
  int completed = 0, failed = 0, good = 0;
  double duration_s = 0;
  uint64_t input_tokens = 0, cached_tokens = 0, output_tokens = 0;
  Distribution ttft_ms, tpot_ms, itl_ms, e2e_ms;
  // Median of |predicted - real| / real of the time to first token.
  double ttft_prediction_error = 0;
  std::vector<std::string> errors;  // distinct, at most 5

  double request_throughput() const { return duration_s > 0 ? completed / duration_s : 0; }
  double goodput() const { return duration_s > 0 ? good / duration_s : 0; }
  double output_throughput() const { return duration_s > 0 ? output_tokens / duration_s : 0; }
  double total_token_throughput() const {
    return duration_s > 0 ? (input_tokens + output_tokens) / duration_s : 0;
  }
};

Summary Summarize(const std::vector<RequestRecord>& records, absl::Duration duration,
                  const Goals& goals);

// For people, and for programs (vLLM's field names).
std::string SummaryTable(const Summary& summary);
std::string SummaryJson(const Summary& summary);

}  // namespace tarn::client
