#pragma once

// What the router counts. Names follow vLLM's where it has the same
// (vllm:time_to_first_token_seconds is tarn_time_to_first_token_seconds here), so that its users
// find their way. Thread-safe, as all of metrics is.

#include "common/metrics/registry.h"

namespace tarn::router {

struct RouterMetrics {
  // `registry` outlives this; one RouterMetrics for a registry.
  explicit RouterMetrics(metrics::Registry& registry);

  metrics::Counter& requests_finished;  // tarn_router_requests_total by outcome
  metrics::Counter& requests_failed;
  metrics::Counter& requests_refused;  // RESOURCE_EXHAUSTED
  metrics::Counter& requests_cancelled;
  metrics::Gauge& requests_in_flight;
  metrics::Gauge& requests_queued;              // in the router, of those in flight
  metrics::Family<metrics::Counter>& refusals;  // by reason
  metrics::Counter& retries_lost;               // tarn_router_retries_total by cause
  metrics::Counter& retries_refused;
  metrics::Counter& retries_left;  // the node was leaving

  metrics::Histogram& time_to_first_token;
  metrics::Histogram& predicted_time_to_first_token;
  // Predicted over real: 1 is right.
  metrics::Histogram& prediction_ratio;
  metrics::Histogram& inter_token_latency;
  metrics::Histogram& e2e_latency;
  metrics::Histogram& routing_time;  // of the decision alone

  metrics::Counter& prompt_tokens;
  metrics::Counter& cached_prompt_tokens;
  metrics::Counter& generation_tokens;

  // The index of who holds which block.
  metrics::Gauge& index_blocks;
  metrics::Gauge& index_places;
  metrics::Gauge& index_bytes;
  metrics::Counter& index_refused;  // places for which it had no room

 private:
  RouterMetrics(metrics::Registry& registry, metrics::Family<metrics::Counter>& outcomes,
                metrics::Family<metrics::Counter>& retries);
};

}  // namespace tarn::router
