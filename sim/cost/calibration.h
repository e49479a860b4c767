#pragma once

// A hardware profile from what a running cluster says of itself. Pure.

#include "sim/cost/hardware.h"
#include "sim/cost/model_shape.h"

namespace tarn::sim {

// Means over nodes; 0: not measured.
struct MeasuredRates {
  double prefill_us_per_token = 0;
  double decode_step_us = 0;
  double decode_batch = 0;    // sequences in such a step
  double decode_context = 0;  // tokens in KV, all of them together
  double pull_bytes_per_us = 0;
  double ssd_read_bytes_per_us = 0;
  double hbm_kv_bytes = 0;  // of one node
  double dram_bytes = 0;
  double ssd_bytes = 0;
};

// `base` with what was measured in its place, so that StepCost gives back the measured times of a
// short prompt and of such a decode step; overheads are part of the rates then. What was not
// measured stays as it is in `base`.
HardwareProfile Calibrate(const HardwareProfile& base, const ModelShape& model,
                          const MeasuredRates& measured);

}  // namespace tarn::sim
