#pragma once

// How fast transfers go, from their starts and ends: bytes over the time in which any was under
// way.

#include <cstdint>

#include "absl/time/time.h"

namespace tarn::kvstore {

// Transfers overlap, so the rate is taken over busy spells, not per transfer; spells are smoothed
// by an exponential average. Pure, thread-compatible.
class RateMeter {
 public:
  void Start(absl::Time now);
  // Ends one transfer that was started; `bytes` is 0 where it failed.
  void Finish(uint64_t bytes, absl::Time now);

  int in_flight() const { return in_flight_; }
  double bytes_per_us() const { return bytes_per_us_; }  // 0: nothing measured yet

 private:
  int in_flight_ = 0;
  absl::Time spell_start_;
  uint64_t spell_bytes_ = 0;
  double bytes_per_us_ = 0;
};

}  // namespace tarn::kvstore
