#include "decode_node/session/decode_request.h"

#include <algorithm>

#include "common/base/status.h"

namespace tarn::decode {

absl::StatusOr<DecodeRequest> ParseRequest(const v1::DecodeAdmit& admit,
                                           const engine::ModelInfo& model,
                                           const BlockLayout& layout,
                                           absl::Duration default_timeout) {
  DecodeRequest request;
  ASSIGN_OR_RETURN(request.sequence, engine::SequenceFrom(admit, model, layout));
  if (admit.max_new_tokens() == 0) {
    return absl::InvalidArgumentError("max_new_tokens is 0; at least 1");
  }
  const uint32_t room = model.max_context - admit.tokens_size();
  request.max_new_tokens = static_cast<int>(std::min(admit.max_new_tokens(), room));
  request.kv_tokens = admit.tokens_size() + request.max_new_tokens - 1;
  ASSIGN_OR_RETURN(request.timeout,
                   engine::TimeoutFrom("timeout_us", admit.timeout_us(), default_timeout));
  return request;
}

}  // namespace tarn::decode
