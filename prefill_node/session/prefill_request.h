#pragma once

// A router's PrefillStart, checked and converted: from here on no proto.

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/executor.h"
#include "engine/wire/sequence.h"
#include "kvstore/core/types.h"
#include "proto/prefill.pb.h"

namespace tarn::prefill {

struct PrefillRequest {
  engine::SequenceSpec sequence;
  // By block: where else it is. May be shorter than the prompt.
  std::vector<std::vector<kvstore::BlockSource>> plan;
  absl::Duration timeout;
  absl::Duration handover_timeout;
  int priority = 0;
};

// What a request gets that names none.
struct RequestDefaults {
  absl::Duration timeout = absl::Minutes(5);
  absl::Duration handover_timeout = absl::Seconds(30);
};

// INVALID_ARGUMENT names field and limit.
absl::StatusOr<PrefillRequest> ParseRequest(const v1::PrefillStart& start,
                                            const engine::ModelInfo& model,
                                            const BlockLayout& layout,
                                            const RequestDefaults& defaults);

}  // namespace tarn::prefill
