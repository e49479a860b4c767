#include "router/policy/predict.h"

#include <algorithm>

namespace tarn::router {
namespace {

// The mean of the positive values it is given.
class Mean {
 public:
  void Add(double value) {
    if (value <= 0) return;
    sum_ += value;
    ++count_;
  }
  double Or(double otherwise) const { return count_ > 0 ? sum_ / count_ : otherwise; }

 private:
  double sum_ = 0;
  int count_ = 0;
};

double Either(double measured, double prior) { return measured > 0 ? measured : prior; }

}  // namespace

Rates PriorRates(const ClusterView& view, NodeRole role) {
  Mean prefill, step, pull, ssd;
  for (const auto& [id, node] : view.nodes()) {
    if (node.role() != role) continue;
    prefill.Add(node.load().prefill_us_per_token);
    step.Add(node.load().step_us);
    pull.Add(node.load().pull_bytes_per_us);
    ssd.Add(node.load().ssd_read_bytes_per_us);
  }
  return {.prefill_us_per_token = prefill.Or(kUnmeasured.prefill_us_per_token),
          .step_us = step.Or(kUnmeasured.step_us),
          .pull_bytes_per_us = pull.Or(kUnmeasured.pull_bytes_per_us),
          .ssd_read_bytes_per_us = ssd.Or(kUnmeasured.ssd_read_bytes_per_us)};
}

Rates RatesOf(const NodeView& node, const Rates& prior) {
  const NodeLoad& load = node.load();
  return {.prefill_us_per_token = Either(load.prefill_us_per_token, prior.prefill_us_per_token),
          .step_us = Either(load.step_us, prior.step_us),
          .pull_bytes_per_us = Either(load.pull_bytes_per_us, prior.pull_bytes_per_us),
          .ssd_read_bytes_per_us = Either(load.ssd_read_bytes_per_us, prior.ssd_read_bytes_per_us)};
}

PrefillPrediction PredictPrefill(const NodeView& node, const Rates& rates, const Holdings& holdings,
                                 int64_t tokens, const BlockShape& block, absl::Time now) {
  const int usable = static_cast<int>((tokens - 1) / block.tokens);
  PrefillPrediction prediction;
  prediction.queue_us =
      node.waiting_tokens(now, rates.prefill_us_per_token) * rates.prefill_us_per_token;
  prediction.local_blocks = std::min(holdings.local, usable);
  const int copied = prediction.local_blocks - std::min(holdings.local_hbm, usable);
  prediction.fetch_us = std::max(0, copied) * block.bytes / kLocalCopyBytesPerUs;

  const int on_ssd = std::min(holdings.local_ssd, usable) - prediction.local_blocks;
  if (on_ssd > 0) {
    const double read_us = on_ssd * block.bytes / rates.ssd_read_bytes_per_us;
    if (read_us < on_ssd * block.tokens * rates.prefill_us_per_token) {
      prediction.local_blocks += on_ssd;
      prediction.fetch_us += read_us;
    }
  }

  const int remote = std::min(holdings.anywhere, usable) - prediction.local_blocks;
  const double pull_us = kPullStartUs + remote * block.bytes / rates.pull_bytes_per_us;
  const double saved_us = remote * block.tokens * rates.prefill_us_per_token;
  if (remote > 0 && pull_us < saved_us) {
    prediction.pull_blocks = remote;
    prediction.fetch_us += pull_us;
  }
  const int64_t taken = prediction.local_blocks + prediction.pull_blocks;
  prediction.compute_tokens = tokens - taken * block.tokens;
  prediction.compute_us =
      static_cast<double>(prediction.compute_tokens) * rates.prefill_us_per_token;
  return prediction;
}

DecodePrediction PredictDecode(const NodeView& node, const Rates& rates, int local_blocks,
                               int64_t tokens, const BlockShape& block) {
  const double blocks = static_cast<double>((tokens + block.tokens - 1) / block.tokens);
  DecodePrediction prediction;
  prediction.handover_us =
      std::max(0.0, blocks - local_blocks) * block.bytes / rates.pull_bytes_per_us;
  // A step reads the weights once and each sequence's KV: up to twice as long in a full batch is a
  // fair guess, and it spreads requests over nodes that are otherwise equal.
  const NodeLoad& load = node.load();
  const double batch = load.max_running > 0 ? static_cast<double>(load.max_running) : 256.0;
  const double fill =
      load.hbm_pages > 0 ? static_cast<double>(node.pages_taken()) / load.hbm_pages : 0.0;
  prediction.step_us = rates.step_us * (1 + std::max(node.running() / batch, fill));
  return prediction;
}

}  // namespace tarn::router
