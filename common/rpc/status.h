#pragma once

// absl::Status to grpc::Status and back. The codes are the same numbers in both.
//
// A status may carry "come back in": on the wire it is the trailing metadata "retry-after-ms".

#include <grpcpp/grpcpp.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tarn {

// `status` with a hint when a retry makes sense. Most useful with RESOURCE_EXHAUSTED.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);

// The hint, if there is one.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// Code and message; the hint does not fit here, see AddRetryAfter.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Code and message of a finished call.
absl::Status FromGrpcStatus(const grpc::Status& status);

// The same with the hint out of the trailing metadata. Only when the call is over.
absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context);

// Puts the hint of `status`, if any, into the trailing metadata. Before the call is finished.
void AddRetryAfter(const absl::Status& status, grpc::ServerContextBase& context);

}  // namespace tarn
