#pragma once

// The pages that every tarn process serves.

#include <functional>

#include "absl/status/status.h"
#include "common/http/router.h"
#include "common/metrics/registry.h"

namespace tarn {

// GET /health: 200 as long as the process answers.
// GET /ready: 200, or 503 with the message of `ready`, which runs on an I/O thread: thread-safe,
// not blocking.
// GET /metrics: `registry` in Prometheus' text form.
// The registry and what `ready` captures must outlive the server.
void AddStatusPages(HttpRouter& router, const metrics::Registry& registry,
                    std::function<absl::Status()> ready);

}  // namespace tarn
