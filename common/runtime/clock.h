#pragma once

// Where time comes from. Brains do not read it: they get `now` as an argument.

#include "absl/time/time.h"

namespace tarn {

// Thread-safe, does not block, never goes backwards.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

}  // namespace tarn
