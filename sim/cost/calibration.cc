#include "sim/cost/calibration.h"

#include <algorithm>

namespace tarn::sim {

HardwareProfile Calibrate(const HardwareProfile& base, const ModelShape& model,
                          const MeasuredRates& measured) {
  HardwareProfile profile = base;
  profile.step_overhead_us = profile.layer_sync_us = profile.gpu_link_bytes_per_s = 0;
  const double gpus = profile.gpus;
  if (measured.prefill_us_per_token > 0) {
    profile.flops_per_s = 2 * model.active_params() / (measured.prefill_us_per_token * 1e-6) / gpus;
    profile.model_efficiency = 1;
  }
  if (measured.decode_step_us > 0) {
    const double batch = std::max(1.0, measured.decode_batch);
    const double weights =
        model.bytes_per_param * (model.always_active_params() + model.head_params() +
                                 model.expert_params() * model.touched_experts(batch));
    const double kv = model.kv_bytes_per_token() * (measured.decode_context + batch);
    profile.memory_bytes_per_s = (weights + kv) / (measured.decode_step_us * 1e-6) / gpus;
  }
  if (measured.hbm_kv_bytes > 0) {
    const double weights = model.bytes_per_param * model.total_params();
    profile.memory_bytes = (weights + measured.hbm_kv_bytes) / profile.memory_for_kv / gpus;
  }
  if (measured.pull_bytes_per_us > 0) {
    profile.network_bytes_per_s = measured.pull_bytes_per_us * 1e6;
  }
  if (measured.ssd_read_bytes_per_us > 0) {
    profile.ssd_read_bytes_per_s = measured.ssd_read_bytes_per_us * 1e6;
  }
  if (measured.dram_bytes > 0) profile.dram_bytes = measured.dram_bytes;
  if (measured.ssd_bytes > 0) profile.ssd_bytes = measured.ssd_bytes;
  return profile;
}

}  // namespace tarn::sim
