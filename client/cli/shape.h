#pragma once

// What plan and calibrate know a cluster by: the shape of its model, and a node's profile.

#include <string>

#include "absl/status/statusor.h"
#include "sim/cost/hardware.h"
#include "sim/cost/model_shape.h"

namespace tarn::client {

inline constexpr char kModelShapeHelp[] =
    "Qwen3-0.6B, -8B, -32B, -30B-A3B, Llama-3-8B, -70B, DeepSeek-V3, or a Hugging Face directory";
inline constexpr char kHardwareHelp[] =
    "A node: h200, h200x8, h100x8, a800x8, cpu, or a JSON file (tarn calibrate)";

// Errors name what is wrong, and list what is known.
absl::StatusOr<sim::ModelShape> ReadModelShape(const std::string& name_or_directory);
absl::StatusOr<sim::HardwareProfile> ReadHardware(const std::string& name_or_file);

// UNAVAILABLE names the file.
absl::Status WriteFile(const std::string& path, const std::string& text);

}  // namespace tarn::client
