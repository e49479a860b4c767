#include "engine/wire/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/wire/convert.h"

namespace tarn::engine {
namespace {

constexpr size_t kMaxEndTokens = 1024;
constexpr size_t kMaxSaltBytes = 4096;
constexpr size_t kMaxTenantBytes = 256;
constexpr absl::Duration kMaxTimeout = absl::Hours(24);

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckIds(const char* field, const std::vector<TokenId>& ids, int vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return Invalid(field, "[", i, "] is ", ids[i], "; must be in [0, ", vocab_size - 1, "]");
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const internal::SequenceFields& fields, const ModelInfo& model) {
  const size_t count = fields.tokens.size();
  if (count == 0) return Invalid("tokens is empty; at least one");
  if (count >= static_cast<size_t>(model.max_context)) {
    return Invalid("tokens has ", count, "; at most ", model.max_context - 1,
                   ", since the context holds ", model.max_context, " with the answer");
  }
  if (fields.prompt_length == 0 || fields.prompt_length > count) {
    return Invalid("prompt_length is ", fields.prompt_length, "; must be in [1, ", count,
                   "], the number of tokens");
  }
  if (fields.end_tokens.size() > kMaxEndTokens) {
    return Invalid("end_token_ids has ", fields.end_tokens.size(), "; at most ", kMaxEndTokens);
  }
  if (fields.salt->size() > kMaxSaltBytes) {
    return Invalid("salt has ", fields.salt->size(), " bytes; at most ", kMaxSaltBytes);
  }
  if (fields.tenant->size() > kMaxTenantBytes) {
    return Invalid("tenant has ", fields.tenant->size(), " bytes; at most ", kMaxTenantBytes);
  }
  if (!fields.lora->empty()) return Invalid("lora is set; this node serves the base model only");
  return absl::OkStatus();
}

}  // namespace

namespace internal {

absl::StatusOr<SequenceSpec> CheckSequence(SequenceFields fields, const ModelInfo& model,
                                           const BlockLayout& layout) {
  RETURN_IF_ERROR(CheckLengths(fields, model));
  RETURN_IF_ERROR(CheckIds("tokens", fields.tokens, model.vocab_size));
  RETURN_IF_ERROR(CheckIds("end_token_ids", fields.end_tokens, model.vocab_size));
  SequenceSpec spec;
  ASSIGN_OR_RETURN(spec.sampling, FromProto(*fields.sampling, fields.end_tokens, model.vocab_size));
  spec.prompt_length = static_cast<int>(fields.prompt_length);
  spec.root = BlockDomain{.model_fingerprint = model.fingerprint,
                          .layout_fingerprint = layout.Fingerprint(),
                          .lora = *fields.lora,
                          .salt = *fields.salt}
                  .Root();
  spec.tenant = *fields.tenant;
  spec.tokens = std::move(fields.tokens);
  spec.end_tokens = std::move(fields.end_tokens);
  std::sort(spec.end_tokens.begin(), spec.end_tokens.end());
  return spec;
}

}  // namespace internal

absl::StatusOr<absl::Duration> TimeoutFrom(const char* field, int64_t timeout_us,
                                           absl::Duration otherwise) {
  const absl::Duration timeout = absl::Microseconds(timeout_us);
  if (timeout_us < 0 || timeout > kMaxTimeout) {
    return Invalid(field, " is ", timeout_us, "; must be in [0, ",
                   absl::ToInt64Microseconds(kMaxTimeout), "]");
  }
  return timeout_us == 0 ? otherwise : timeout;
}

}  // namespace tarn::engine
