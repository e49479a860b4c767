#include "router/session/router_metrics.h"

namespace tarn::router {
namespace {

using metrics::ExponentialBounds;

std::vector<double> SecondsBounds() { return ExponentialBounds(0.001, 2, 18); }

}  // namespace

RouterMetrics::RouterMetrics(metrics::Registry& registry)
    : RouterMetrics(
          registry,
          registry.AddCounterFamily("tarn_router_requests_total",
                                    "Requests that have ended, by how.", {.names = {"outcome"}}),
          registry.AddCounterFamily("tarn_router_retries_total",
                                    "Further tries of a request at another node, by cause.",
                                    {.names = {"cause"}})) {}

RouterMetrics::RouterMetrics(metrics::Registry& registry,
                             metrics::Family<metrics::Counter>& outcomes,
                             metrics::Family<metrics::Counter>& retries)
    : requests_finished(outcomes.With({"finished"})),
      requests_failed(outcomes.With({"failed"})),
      requests_refused(outcomes.With({"refused"})),
      requests_cancelled(outcomes.With({"cancelled"})),
      requests_in_flight(
          registry.AddGauge("tarn_router_requests_in_flight", "Requests under way.")),
      requests_queued(registry.AddGauge(
          "tarn_router_requests_queued",
          "Requests that wait in the router because every node has enough to do.")),
      refusals(registry.AddCounterFamily("tarn_router_refusals_total",
                                         "Decisions that no node can serve the request, by reason.",
                                         {.names = {"reason"}})),
      retries_lost(retries.With({"lost"})),
      retries_refused(retries.With({"refused"})),
      retries_left(retries.With({"left"})),
      time_to_first_token(registry.AddHistogram(
          "tarn_time_to_first_token_seconds", "From receipt to the first token.", SecondsBounds())),
      predicted_time_to_first_token(registry.AddHistogram(
          "tarn_router_predicted_time_to_first_token_seconds",
          "What the router predicted of requests that got a first token.", SecondsBounds())),
      prediction_ratio(
          registry.AddHistogram("tarn_router_prediction_ratio",
                                "Predicted over real time from the decision to the first token.",
                                ExponentialBounds(1.0 / 64, 2, 13))),
      inter_token_latency(registry.AddHistogram("tarn_inter_token_latency_seconds",
                                                "Between tokens of one answer.",
                                                ExponentialBounds(0.0005, 2, 15))),
      e2e_latency(registry.AddHistogram("tarn_e2e_request_latency_seconds",
                                        "From receipt to the last token.", SecondsBounds())),
      routing_time(registry.AddHistogram("tarn_router_routing_seconds",
                                         "Keys, match and decision of one request.",
                                         ExponentialBounds(1e-6, 2, 18))),
      prompt_tokens(registry.AddCounter("tarn_prompt_tokens_total",
                                        "Prompt tokens of requests that got a first token.")),
      cached_prompt_tokens(registry.AddCounter("tarn_cached_prompt_tokens_total",
                                               "Of tarn_prompt_tokens_total: not computed.")),
      generation_tokens(
          registry.AddCounter("tarn_generation_tokens_total", "Tokens sent to clients.")),
      index_blocks(
          registry.AddGauge("tarn_router_index_blocks", "Distinct blocks that are known.")),
      index_places(registry.AddGauge("tarn_router_index_places",
                                     "Places of blocks: one in two tiers or nodes counts twice.")),
      index_bytes(registry.AddGauge("tarn_router_index_bytes", "Memory of the index.")),
      index_refused(registry.AddCounter("tarn_router_index_refused_places_total",
                                        "Places that the index had no room for: not used.")) {}

}  // namespace tarn::router
