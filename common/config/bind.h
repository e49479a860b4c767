#pragma once

#include "absl/status/status.h"
#include "common/config/parse.h"

namespace tarn {

// Whether `address` can be bound now, for libraries that do not say why they failed to: OK, or
// UNAVAILABLE with the address and the system's reason ("Address already in use"), or
// INVALID_ARGUMENT if it is no address of this host. Resolves names, so it may block.
absl::Status CheckBindable(const HostPort& address);

}  // namespace tarn
