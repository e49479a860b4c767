#pragma once

// The frontend's values as protos. Plain functions.

#include "proto/inference.pb.h"
#include "router/frontend/completion.h"

namespace tarn::router {

v1::GenerateResponse ToProto(const CompletionChunk& chunk, bool with_logprobs);
v1::Usage ToProto(const CompletionUsage& usage);

}  // namespace tarn::router
