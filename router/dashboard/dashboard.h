#pragma once

// A page for people: what the router knows of its cluster, renewed every two seconds.
//
//   GET /            the page; one HTML file without references to other hosts
//   GET /api/status  GetStatusResponse as JSON (proto field names; 64-bit integers are strings),
//   and
//                    "time_to_first_token": {"count", "p50_s", "p90_s", "p99_s"} (null while empty)

#include <functional>

#include "common/http/router.h"
#include "common/metrics/registry.h"
#include "common/runtime/event_loop.h"
#include "proto/inference.pb.h"

namespace tarn::router {

struct DashboardParts {
  EventLoop* loop = nullptr;
  std::function<v1::GetStatusResponse()> status;            // runs on the loop
  const metrics::Histogram* time_to_first_token = nullptr;  // seconds; optional
};

// Before the HTTP server starts. What `parts` names outlives the server.
void AddDashboard(HttpRouter& router, DashboardParts parts);

}  // namespace tarn::router
