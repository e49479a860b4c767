#include "decode_node/session/decode_metrics.h"

namespace tarn::decode {

using metrics::ExponentialBounds;

DecodeMetrics::DecodeMetrics(metrics::Registry& registry)
    : requests(registry.AddCounterFamily("tarn_decode_requests_total",
                                         "Requests that ended here, by outcome", {{"outcome"}})),
      generation_tokens(registry.AddCounter("tarn_decode_generation_tokens_total",
                                            "Tokens sampled here: all but the first of each")),
      handover_tokens(registry.AddCounterFamily(
          "tarn_decode_handover_tokens_total",
          "Tokens in front of an answer, by where their KV came from", {{"source"}})),
      mismatched_blocks(registry.AddCounter(
          "tarn_decode_mismatched_blocks_total",
          "Announced blocks whose key is not the sequence's: model, layout or salt differ")),
      seated(registry.AddGauge("tarn_decode_requests_seated",
                               "Requests that run or wait for their KV")),
      running(registry.AddGauge("tarn_decode_requests_running", "Requests in the batch")),
      handover_seconds(registry.AddHistogram("tarn_decode_handover_seconds",
                                             "From start until all blocks were here",
                                             ExponentialBounds(0.0001, 2, 18))),
      step_seconds(registry.AddHistogram("tarn_decode_step_seconds", "Time of a step",
                                         ExponentialBounds(0.0005, 2, 16))),
      batch_size(registry.AddHistogram("tarn_decode_batch_size", "Sequences of a step",
                                       ExponentialBounds(1, 2, 11))) {
  // Shown as 0 from the start, so that rates and ratios have no gaps.
  for (const char* outcome : {"stop", "length", "failed", "refused", "cancelled", "expired"}) {
    requests.With({outcome});
  }
  for (const char* source : {"local", "pulled", "recomputed"}) handover_tokens.With({source});
}

}  // namespace tarn::decode
