#pragma once

// Sends requests at their times, a bounded number at once, and records what came back.
// Blocks until all have ended. One run at a time.

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/lib/client.h"
#include "client/load/summary.h"

namespace tarn::client {

struct LoadRequest {
  absl::Duration at;  // from the start of the run; closed loops leave it zero
  v1::GenerateRequest request;
};

struct LoadOptions {
  int max_concurrency = 0;  // 0: as many as the arrivals bring
  // Called about once a second and at the end, with how far the run is. May be empty.
  std::function<void(size_t ended, size_t failed, size_t all, absl::Duration elapsed)> progress;
};

struct LoadResult {
  std::vector<RequestRecord> records;  // in order of the requests
  absl::Duration duration;             // first sent to last ended
};

// `requests` in order of `at`.
LoadResult RunLoad(Client& client, const std::vector<LoadRequest>& requests,
                   const LoadOptions& options);

}  // namespace tarn::client
