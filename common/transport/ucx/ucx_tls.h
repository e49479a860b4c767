#pragma once

// What a value of UCX_TLS lets UCX use. Pure.

#include <string>

#include "absl/status/statusor.h"

namespace tarn {

// Whether RDMA devices are used, if there are any.
bool AllowsRdma(const std::string& tls);

// Whether TCP is used, at all or beside others.
bool AllowsTcp(const std::string& tls);

// `tls` without RDMA, for a host on which no device shall be used: UCX takes an empty list of
// devices for all of them. INVALID_ARGUMENT: that leaves nothing.
absl::StatusOr<std::string> WithoutRdma(const std::string& tls);

}  // namespace tarn
