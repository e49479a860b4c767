#pragma once

// What a decode node counts, under the names that Prometheus sees. Thread-safe.

#include "common/metrics/registry.h"

namespace tarn::decode {

struct DecodeMetrics {
  explicit DecodeMetrics(metrics::Registry& registry);

  // By outcome: stop, length, failed, refused, cancelled, expired.
  metrics::Family<metrics::Counter>& requests;
  metrics::Counter& generation_tokens;
  // By source: local, pulled, recomputed. Their sum is the tokens of all that joined.
  metrics::Family<metrics::Counter>& handover_tokens;
  metrics::Counter& mismatched_blocks;
  metrics::Gauge& seated;
  metrics::Gauge& running;
  metrics::Histogram& handover_seconds;
  metrics::Histogram& step_seconds;
  metrics::Histogram& batch_size;
};

}  // namespace tarn::decode
