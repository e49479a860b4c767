#pragma once

// Protos to the engine's values and back, in one place. What comes from the wire is checked here.
// Plain functions; thread-safe, nothing blocks.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/executor.h"
#include "engine/sampling/sampling.h"
#include "proto/common.pb.h"
#include "proto/request.pb.h"

namespace tarn::engine {

// Fields that are not set take the engine's defaults, which are vLLM's; a model's own defaults have
// been put in by the router. `end_tokens`: kept out of the draw before min_tokens.
// INVALID_ARGUMENT names the field ("sampling: ...") and its limits.
absl::StatusOr<SamplingParams> FromProto(const v1::SamplingParams& proto,
                                         std::vector<TokenId> end_tokens, int vocab_size);
// Every field is set, and the message is the same sampling on any node. The fields that are not the
// engine's (stop strings, max_tokens, ...) stay empty.
v1::SamplingParams ToProto(const SamplingParams& params);

SampledToken FromProto(const v1::SampledToken& proto);
v1::SampledToken ToProto(const SampledToken& token);

// A status inside a stream. `retry_after` zero: no hint.
v1::Error ToProto(const absl::Status& status, absl::Duration retry_after = absl::ZeroDuration());
// Never OK: a code that makes no sense becomes UNKNOWN.
absl::Status FromProto(const v1::Error& error);
absl::Duration RetryAfterOf(const v1::Error& error);

// What a node tells others of its model.
v1::ModelDescriptor DescriptorOf(const ModelInfo& model, const BlockLayout& layout);

}  // namespace tarn::engine
