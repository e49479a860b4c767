#include "prefill_node/session/prefill_metrics.h"

namespace tarn::prefill {

using metrics::ExponentialBounds;

PrefillMetrics::PrefillMetrics(metrics::Registry& registry)
    : requests(registry.AddCounterFamily("tarn_prefill_requests_total",
                                         "Requests that ended here, by outcome", {{"outcome"}})),
      prompt_tokens(registry.AddCounterFamily("tarn_prefill_prompt_tokens_total",
                                              "Prompt tokens, by where their KV came from",
                                              {{"source"}})),
      handovers_expired(registry.AddCounter("tarn_prefill_handovers_expired_total",
                                            "Hand-overs that nobody released in time")),
      waiting(registry.AddGauge("tarn_prefill_requests_waiting", "Requests that wait for pages")),
      running(registry.AddGauge("tarn_prefill_requests_running",
                                "Requests whose blocks are fetched or computed")),
      waiting_tokens(registry.AddGauge("tarn_prefill_waiting_tokens",
                                       "Prompt tokens that are still to be computed")),
      queue_seconds(registry.AddHistogram("tarn_prefill_queue_seconds",
                                          "From receipt until pages were reserved",
                                          ExponentialBounds(0.0001, 2, 20))),
      fetch_seconds(registry.AddHistogram("tarn_prefill_fetch_seconds",
                                          "Fetching cached blocks, by request",
                                          ExponentialBounds(0.0001, 2, 18))),
      compute_seconds(registry.AddHistogram("tarn_prefill_compute_seconds",
                                            "From the end of the fetch to the first token",
                                            ExponentialBounds(0.001, 2, 18))),
      step_seconds(registry.AddHistogram("tarn_prefill_step_seconds", "Time of a step",
                                         ExponentialBounds(0.0005, 2, 16))),
      step_tokens(registry.AddHistogram("tarn_prefill_step_tokens", "New tokens of a step",
                                        ExponentialBounds(1, 2, 15))) {
  // Shown as 0 from the start, so that rates and ratios have no gaps.
  for (const char* outcome : {"done", "failed", "refused", "cancelled", "expired"}) {
    requests.With({outcome});
  }
  for (const char* source :
       {"computed", "local_hbm", "local_dram", "local_ssd", "remote", "remote_ssd"}) {
    prompt_tokens.With({source});
  }
}

}  // namespace tarn::prefill
