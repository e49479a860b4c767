#pragma once

// The brain's explanation of a decision, on the wire.

#include "proto/inference.pb.h"
#include "router/policy/choose.h"

namespace tarn::router {

v1::ExplainResponse ToProto(const Explanation& explanation);

}  // namespace tarn::router
