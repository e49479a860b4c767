#include "router/policy/predict.h"

#include <algorithm>

#include "common/base/mean.h"

namespace tarn::router {
namespace {

double Either(double measured, double prior) { return measured > 0 ? measured : prior; }

// Of tokens [begin, end), of which the first step has at least one.
double ComputeUs(const StepTime& step, double begin, double end, double chunk) {
  const double tokens = end - begin;
  return step.PredictInSteps(std::max(tokens, chunk), 0, chunk) -
         step.us_per_token * std::max(0.0, chunk - tokens) +
         step.us_per_attended * AttendedBy(begin, end);
}

}  // namespace

Rates Unmeasured(NodeRole role) {
  Rates rates = {.pull_bytes_per_us = 1000, .ssd_read_bytes_per_us = 1000};
  if (role == NodeRole::kDecode) {
    rates.step.base_us = 50'000;
  } else {
    rates.step.us_per_token = 1000;
  }
  return rates;
}

StepTime MeasuredStep(const NodeView& node) {
  const NodeLoad& load = node.load();
  if (load.step_time.measured()) return load.step_time;
  if (node.role() == NodeRole::kDecode) return {.base_us = load.step_us};
  return {.us_per_token = load.prefill_us_per_token};
}

Rates PriorRates(const ClusterView& view, NodeRole role) {
  PositiveMean pull, ssd;
  StepTime sum;
  int measured = 0;
  for (const auto& [id, node] : view.nodes()) {
    if (node.role() != role) continue;
    pull.Add(node.load().pull_bytes_per_us);
    ssd.Add(node.load().ssd_read_bytes_per_us);
    const StepTime step = MeasuredStep(node);
    if (!step.measured()) continue;
    ++measured;
    sum.base_us += step.base_us;
    sum.us_per_token += step.us_per_token;
    sum.us_per_attended += step.us_per_attended;
  }
  Rates rates = Unmeasured(role);
  rates.pull_bytes_per_us = pull.Or(rates.pull_bytes_per_us);
  rates.ssd_read_bytes_per_us = ssd.Or(rates.ssd_read_bytes_per_us);
  if (measured > 0) {
    rates.step = {sum.base_us / measured, sum.us_per_token / measured,
                  sum.us_per_attended / measured};
  }
  return rates;
}

Rates RatesOf(const NodeView& node, const Rates& prior) {
  const NodeLoad& load = node.load();
  const StepTime step = MeasuredStep(node);
  return {.step = step.measured() ? step : prior.step,
          .pull_bytes_per_us = Either(load.pull_bytes_per_us, prior.pull_bytes_per_us),
          .ssd_read_bytes_per_us = Either(load.ssd_read_bytes_per_us, prior.ssd_read_bytes_per_us)};
}

PrefillPrediction PredictPrefill(const NodeView& node, const Rates& rates, const Holdings& holdings,
                                 int64_t tokens, const BlockShape& block, absl::Time now) {
  const int usable = static_cast<int>((tokens - 1) / block.tokens);
  const double chunk = node.step_tokens();
  const auto computing = [&](int from_block, int to_block) {
    const double begin = static_cast<double>(from_block) * block.tokens;
    const double end = static_cast<double>(to_block) * block.tokens;
    return rates.step.PredictInSteps(end - begin, AttendedBy(begin, end), chunk);
  };
  PrefillPrediction prediction;
  prediction.queue_us = node.waiting_us(now, rates.step);
  prediction.local_blocks = std::min(holdings.local, usable);
  const int copied = prediction.local_blocks - std::min(holdings.local_hbm, usable);
  prediction.fetch_us = std::max(0, copied) * block.bytes / kLocalCopyBytesPerUs;

  const int on_ssd = std::min(holdings.local_ssd, usable) - prediction.local_blocks;
  if (on_ssd > 0) {
    const double read_us = on_ssd * block.bytes / rates.ssd_read_bytes_per_us;
    if (read_us < computing(prediction.local_blocks, prediction.local_blocks + on_ssd)) {
      prediction.local_blocks += on_ssd;
      prediction.fetch_us += read_us;
    }
  }

  const int remote = std::min(holdings.anywhere, usable) - prediction.local_blocks;
  const double pull_us = kPullStartUs + remote * block.bytes / rates.pull_bytes_per_us;
  if (remote > 0 &&
      pull_us < computing(prediction.local_blocks, prediction.local_blocks + remote)) {
    prediction.pull_blocks = remote;
    prediction.fetch_us += pull_us;
  }
  const int64_t taken = int64_t{prediction.local_blocks + prediction.pull_blocks} * block.tokens;
  const double begin = static_cast<double>(taken);
  const double end = static_cast<double>(tokens);
  prediction.compute_tokens = tokens - taken;
  prediction.compute_attended = AttendedBy(begin, end);
  prediction.compute_us = ComputeUs(rates.step, begin, end, chunk);
  return prediction;
}

DecodePrediction PredictDecode(const NodeView& node, const Rates& rates, int local_blocks,
                               int64_t tokens, const BlockShape& block) {
  const double blocks = static_cast<double>((tokens + block.tokens - 1) / block.tokens);
  DecodePrediction prediction;
  prediction.handover_us =
      std::max(0.0, blocks - local_blocks) * block.bytes / rates.pull_bytes_per_us;
  const NodeLoad& load = node.load();
  prediction.step_us =
      rates.step.Predict(node.running() + 1, static_cast<double>(node.kv_tokens() + tokens));
  if (load.step_time.measured()) return prediction;
  // A step reads the weights once and each sequence's KV: up to twice as long in a full batch is a
  // fair guess, and it spreads requests over nodes that are otherwise equal.
  const double batch = load.max_running > 0 ? static_cast<double>(load.max_running) : 256.0;
  const double fill =
      load.hbm_pages > 0 ? static_cast<double>(node.pages_taken()) / load.hbm_pages : 0.0;
  prediction.step_us *= 1 + std::max(node.running() / batch, fill);
  return prediction;
}

}  // namespace tarn::router
