#pragma once

// UCX's status codes as ours. Private to ucx/.

#include <ucs/type/status.h>

#include <string>

#include "absl/status/status.h"

namespace tarn {

// `what` failed, e.g. "read from peer 3".
absl::Status FromUcx(ucs_status_t status, const std::string& what);

}  // namespace tarn
