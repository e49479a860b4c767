#pragma once

// What a prefill node counts, under the names that Prometheus sees. Thread-safe.

#include "common/metrics/registry.h"

namespace tarn::prefill {

struct PrefillMetrics {
  explicit PrefillMetrics(metrics::Registry& registry);

  // By outcome: done, failed, refused, cancelled, expired.
  metrics::Family<metrics::Counter>& requests;
  // By source: computed, local_hbm, local_dram, local_ssd, remote, remote_ssd. Their sum is all
  // prompt tokens.
  metrics::Family<metrics::Counter>& prompt_tokens;
  metrics::Counter& handovers_expired;
  metrics::Gauge& waiting;
  metrics::Gauge& running;
  metrics::Gauge& waiting_tokens;
  metrics::Histogram& queue_seconds;
  metrics::Histogram& fetch_seconds;
  metrics::Histogram& compute_seconds;
  metrics::Histogram& step_seconds;
  metrics::Histogram& step_tokens;
};

}  // namespace tarn::prefill
