#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tarn::engine {
namespace {

using std::numbers::pi;

// Long waves are stretched by `factor`, short ones kept, with a ramp between the two.
double Llama3Frequency(double frequency, const RopeScaling& scaling) {
  const double turns = scaling.original_max_position * frequency / (2 * pi);
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const double kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

// The pair that turns `turns` times within the original context.
double YarnCorner(double turns, const ModelConfig& config) {
  return config.head_dim * std::log(config.rope_scaling.original_max_position / (turns * 2 * pi)) /
         (2 * std::log(config.rope_theta));
}

void ScaleYarn(const ModelConfig& config, std::vector<double>& frequencies) {
  const RopeScaling& scaling = config.rope_scaling;
  double low = YarnCorner(scaling.beta_fast, config);
  double high = YarnCorner(scaling.beta_slow, config);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.head_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= (1 - ramp) + ramp / scaling.factor;
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig& config) {
  std::vector<double> frequencies(static_cast<size_t>(config.head_dim) / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / config.head_dim);
  }
  const RopeScaling& scaling = config.rope_scaling;
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      break;
    case RopeScaling::Kind::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      break;
    case RopeScaling::Kind::kLlama3:
      for (double& frequency : frequencies) frequency = Llama3Frequency(frequency, scaling);
      break;
    case RopeScaling::Kind::kYarn:
      ScaleYarn(config, frequencies);
      break;
  }
  return frequencies;
}

}  // namespace tarn::engine
