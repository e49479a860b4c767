#include "sim/cost/step_cost.h"

#include <algorithm>
#include <utility>

namespace tarn::sim {

void StepWork::AddChunk(int before, int tokens, bool last) {
  prefill_tokens += tokens;
  prefill_pairs += static_cast<double>(tokens) * before + 0.5 * tokens * (tokens + 1.0);
  prefill_context += before;
  samples += last ? 1 : 0;
}

void StepWork::AddDecode(int sequences, double context) {
  decode_tokens += sequences;
  decode_context += context;
  samples += sequences;
}

StepCost::StepCost(ModelShape model, HardwareProfile node)
    : model_(std::move(model)), node_(std::move(node)) {
  const double gpus = node_.gpus;
  flops_per_s_ = gpus * node_.flops_per_s * node_.model_efficiency;
  bytes_per_s_ = gpus * node_.memory_bytes_per_s;
  linear_flops_ = 2 * model_.active_params();
  head_flops_ = 2 * model_.head_params();
  prefill_pair_flops_ = model_.prefill_pair_flops();
  decode_pair_flops_ = model_.decode_pair_flops();
  fixed_bytes_ = model_.bytes_per_param * (model_.always_active_params() + model_.head_params());
  expert_bytes_ = model_.bytes_per_param * model_.expert_params();
  kv_bytes_ = model_.kv_bytes_per_token();
  overhead_s_ = node_.step_overhead_us * 1e-6;
  sync_s_ = sync_s_per_token_ = 0;
  if (node_.gpus > 1) {
    // Two all-reduces a layer, each of which sends 2 (n - 1) / n of the hidden state.
    const double reduces = 2.0 * model_.layers;
    sync_s_ = reduces * node_.layer_sync_us * 1e-6;
    if (node_.gpu_link_bytes_per_s > 0) {
      sync_s_per_token_ =
          reduces * 2.0 * model_.hidden * 2 * (gpus - 1) / gpus / node_.gpu_link_bytes_per_s;
    }
  }
}

absl::Duration StepCost::Of(const StepWork& work) const {
  const double tokens = static_cast<double>(work.prefill_tokens) + work.decode_tokens;
  const double linear_flops = tokens * linear_flops_ + work.samples * head_flops_;
  double weights = fixed_bytes_;
  if (expert_bytes_ > 0) weights += expert_bytes_ * model_.touched_experts(tokens);
  const double attention_flops =
      work.prefill_pairs * prefill_pair_flops_ + work.decode_context * decode_pair_flops_;
  const double kv = kv_bytes_ * (work.prefill_context + work.decode_context + tokens);
  const double seconds = std::max(linear_flops / flops_per_s_, weights / bytes_per_s_) +
                         std::max(attention_flops / flops_per_s_, kv / bytes_per_s_) + sync_s_ +
                         tokens * sync_s_per_token_ + overhead_s_;
  return absl::Nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

double StepCost::kv_tokens() const {
  const double weights = model_.bytes_per_param * model_.total_params();
  const double room = node_.gpus * node_.memory_bytes * node_.memory_for_kv - weights;
  return std::max(0.0, room / kv_bytes_);
}

int StepCost::SeatsWithin(absl::Duration limit, double context) const {
  const double fitting = kv_tokens() / std::max(1.0, context);
  const auto step = [this, context](int seats) {
    StepWork work;
    work.AddDecode(seats, seats * context);
    return Of(work);
  };
  int low = 1, high = std::max(1, static_cast<int>(fitting));
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    (step(middle) <= limit ? low : high) = step(middle) <= limit ? middle : middle - 1;
  }
  return low;
}

}  // namespace tarn::sim
