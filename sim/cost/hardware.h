#pragma once

// What one node of a cluster can do, in numbers that a calibration measures. Pure values, and their
// form as JSON.

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn::sim {

// Rates are what is reached, not what a data sheet promises; README.md has the source of each.
struct HardwareProfile {
  std::string name;
  int gpus = 1;  // of one node, which serve one copy of the model (tensor parallelism)

  // One GPU.
  double flops_per_s = 0;         // large matrix products
  double model_efficiency = 1;    // of it in whole layers
  double memory_bytes_per_s = 0;  // reads
  double memory_bytes = 0;
  double memory_for_kv = 0.9;  // share of the memory that is left to weights and KV
  // To another GPU of the node, one direction.
  double gpu_link_bytes_per_s = 0;

  double step_overhead_us = 0;  // launch, scheduling and sampling of one step
  double layer_sync_us = 0;     // latency of one all-reduce among the node's GPUs

  // The node.
  double network_bytes_per_s = 0;  // each direction
  double host_bytes_per_s = 0;     // DRAM to GPUs
  double dram_bytes = 0;           // for KV
  double ssd_bytes = 0;            // for KV
  double ssd_read_bytes_per_s = 0;

  double dollars_per_hour = 0;  // the node without DRAM and SSD for KV

  friend bool operator==(const HardwareProfile&, const HardwareProfile&) = default;
};

// h200, h200x8, h100x8, a800x8, cpu.
const std::vector<HardwareProfile>& KnownHardware();

// NOT_FOUND lists the known ones.
absl::StatusOr<HardwareProfile> FindHardware(const std::string& name);

// All fields, by their names. INVALID_ARGUMENT names an unknown field, a wrong type or a value that
// is not above 0 where it has to be; what is missing keeps its default.
std::string ToJson(const HardwareProfile& profile);
absl::StatusOr<HardwareProfile> ParseHardware(const std::string& json);

}  // namespace tarn::sim
