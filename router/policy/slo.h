#pragma once

// What a class of requests is promised.

#include "absl/time/time.h"

namespace tarn::router {

struct Slo {
  absl::Duration ttft = absl::InfiniteDuration();  // time to first token
  absl::Duration tpot = absl::InfiniteDuration();  // time per token after it
};

}  // namespace tarn::router
