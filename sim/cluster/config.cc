#include "sim/cluster/config.h"

namespace tarn::sim {

absl::Status ClusterConfig::Check() const {
  const auto wrong = [](const char* what) { return absl::InvalidArgumentError(what); };
  const bool split = prefill_nodes > 0 && decode_nodes > 0;
  if (coupled() == split || (coupled() && prefill_nodes + decode_nodes > 0)) {
    return wrong("a cluster has either coupled nodes, or both prefill and decode nodes");
  }
  if (prefill_nodes < 0 || decode_nodes < 0 || store_nodes < 0) return wrong("nodes below 0");
  if (chunk_tokens < 1 || max_prefills < 1 || max_batch < 0) {
    return wrong("chunk_tokens and max_prefills must be at least 1, max_batch at least 0");
  }
  if (report_interval <= absl::ZeroDuration()) return wrong("report_interval must be above 0");
  return absl::OkStatus();
}

const char* Name(RouterPolicy policy) {
  switch (policy) {
    case RouterPolicy::kTarn:
      return "tarn";
    case RouterPolicy::kRandom:
      return "random";
    case RouterPolicy::kLeastLoad:
      return "load balancing";
    case RouterPolicy::kLocalCache:
      return "local cache-aware";
    case RouterPolicy::kLongestPrefix:
      return "longest prefix first";
  }
  return "unknown";
}

const char* Name(Rejection rejection) {
  switch (rejection) {
    case Rejection::kNever:
      return "never";
    case Rejection::kLate:
      return "after prefill";
    case Rejection::kByLoad:
      return "by current load";
    case Rejection::kByPrediction:
      return "by prediction";
  }
  return "unknown";
}

}  // namespace tarn::sim
