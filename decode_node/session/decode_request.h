#pragma once

// A router's DecodeAdmit, checked and converted: from here on no proto.

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/executor.h"
#include "engine/wire/sequence.h"
#include "proto/decode.pb.h"

namespace tarn::decode {

struct DecodeRequest {
  engine::SequenceSpec sequence;
  int max_new_tokens = 0;  // not more than the context leaves
  int kv_tokens = 0;       // tokens with KV at the end: all but the last new one
  absl::Duration timeout;
};

// INVALID_ARGUMENT names field and limit.
absl::StatusOr<DecodeRequest> ParseRequest(const v1::DecodeAdmit& admit,
                                           const engine::ModelInfo& model,
                                           const BlockLayout& layout,
                                           absl::Duration default_timeout);

}  // namespace tarn::decode
