#pragma once

// Random numbers from a seed: equal seeds give equal draws on every machine and compiler (which the
// standard's distributions do not promise). Passed in where needed, never global.
// Not for secrets. Thread-compatible.

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>

namespace tarn {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  // Seeded by the operating system. For main() only: what it decides cannot be replayed.
  static Random FromEntropy();

  uint64_t Next() { return engine_(); }
  // Uniform in [0, bound); bound > 0.
  uint64_t UniformInt(uint64_t bound);
  // Uniform in [low, high]; low <= high.
  int64_t UniformInt(int64_t low, int64_t high);
  // Uniform in [0, 1), a multiple of 2^-53.
  double UniformDouble() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // True with this probability.
  bool Chance(double probability) { return UniformDouble() < probability; }
  void Fill(std::span<std::byte> bytes);

  // A generator whose draws do not disturb this one's, e.g. one for each simulated node.
  Random Fork() { return Random(Next()); }

 private:
  std::mt19937_64 engine_;
};

}  // namespace tarn
