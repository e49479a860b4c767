#pragma once

// Flags of a router that are more than a number.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "router/policy/slo.h"

namespace tarn::router {

// "interactive=500ms,50ms": time to first token, time per token; "-" promises nothing.
// INVALID_ARGUMENT says how it is written.
absl::StatusOr<std::map<std::string, Slo>> ParseServiceClasses(
    const std::vector<std::string>& flags);

// "tenant=3".
absl::StatusOr<std::map<std::string, double>> ParseTenantWeights(
    const std::vector<std::string>& flags);

}  // namespace tarn::router
