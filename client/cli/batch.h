#pragma once

// Files of requests: one JSON object a line in, one a line out, in the same order. `tarn generate`
// sends them to a cluster, `tarn run` to an engine in the process, and the outputs can be compared.
//
// In:  {"prompt": "text"} or {"tokens": [1, 2]}, and any of: max_tokens, min_tokens, temperature,
// top_p,
//      top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed, stop (list),
//      stop_token_ids (list), ignore_eos, tenant, cache_salt, timeout_ms.
// Out: {"index", "token_ids", "text", "finish_reason", "prompt_tokens", "cached_tokens", "ttft_ms",
//      "total_ms", "prefill_node", "decode_node"}, or {"index", "error", "code"}.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/inference.pb.h"

namespace tarn::client {

// Fields that a line leaves out come from `defaults`. INVALID_ARGUMENT names line and field.
absl::StatusOr<std::vector<v1::GenerateRequest>> ParseRequests(const std::string& jsonl,
                                                               const v1::SamplingParams& defaults);

struct BatchAnswer {
  absl::Status status;
  std::vector<int32_t> token_ids;
  std::string text;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  double ttft_ms = 0;  // as this side saw it
  double total_ms = 0;
};

// "stop", "length", "cancelled".
std::string FinishReasonName(v1::FinishReason reason);

// One line, without the newline. Text that is not UTF-8 cannot occur.
std::string AnswerJson(size_t index, const BatchAnswer& answer);

}  // namespace tarn::client
