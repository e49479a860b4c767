#include "engine/wire/convert.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::engine {

absl::StatusOr<SamplingParams> FromProto(const v1::SamplingParams& proto,
                                         std::vector<TokenId> end_tokens, int vocab_size) {
  SamplingParams params;
  if (proto.has_temperature()) params.temperature = proto.temperature();
  if (proto.has_top_p()) params.top_p = proto.top_p();
  if (proto.has_top_k()) params.top_k = proto.top_k();
  if (proto.has_min_p()) params.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) params.repetition_penalty = proto.repetition_penalty();
  if (proto.has_presence_penalty()) params.presence_penalty = proto.presence_penalty();
  if (proto.has_frequency_penalty()) params.frequency_penalty = proto.frequency_penalty();
  if (proto.has_seed()) params.seed = proto.seed();
  if (proto.has_logprobs()) params.logprobs = proto.logprobs();
  if (proto.min_tokens() > static_cast<uint32_t>(INT32_MAX)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling: min_tokens is ", proto.min_tokens(), "; at most ", INT32_MAX));
  }
  params.min_tokens = static_cast<int>(proto.min_tokens());
  params.forbidden_before_min_tokens = std::move(end_tokens);
  RETURN_IF_ERROR(Annotate(params.Validate(vocab_size), "sampling"));
  return params;
}

v1::SamplingParams ToProto(const SamplingParams& params) {
  v1::SamplingParams proto;
  proto.set_temperature(params.temperature);
  proto.set_top_p(params.top_p);
  proto.set_top_k(params.top_k);
  proto.set_min_p(params.min_p);
  proto.set_repetition_penalty(params.repetition_penalty);
  proto.set_presence_penalty(params.presence_penalty);
  proto.set_frequency_penalty(params.frequency_penalty);
  proto.set_seed(params.seed);
  if (params.logprobs >= 0) proto.set_logprobs(params.logprobs);
  proto.set_min_tokens(static_cast<uint32_t>(std::max(params.min_tokens, 0)));
  return proto;
}

SampledToken FromProto(const v1::SampledToken& proto) {
  SampledToken token;
  token.token = proto.token();
  token.logprob = proto.logprob();
  token.top_logprobs.reserve(proto.top_logprobs_size());
  for (const v1::TokenLogprob& top : proto.top_logprobs()) {
    token.top_logprobs.push_back({top.token(), top.logprob()});
  }
  return token;
}

v1::SampledToken ToProto(const SampledToken& token) {
  v1::SampledToken proto;
  proto.set_token(token.token);
  proto.set_logprob(token.logprob);
  for (const TokenLogprob& top : token.top_logprobs) {
    v1::TokenLogprob* added = proto.add_top_logprobs();
    added->set_token(top.token);
    added->set_logprob(top.logprob);
  }
  return proto;
}

v1::Error ToProto(const absl::Status& status, absl::Duration retry_after) {
  v1::Error error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(Message(status));
  error.set_retry_after_us(absl::ToInt64Microseconds(retry_after));
  return error;
}

absl::Status FromProto(const v1::Error& error) {
  const bool known = error.code() > 0 && error.code() <= 16;
  const auto code =
      known ? static_cast<absl::StatusCode>(error.code()) : absl::StatusCode::kUnknown;
  return absl::Status(code, error.message());
}

absl::Duration RetryAfterOf(const v1::Error& error) {
  return absl::Microseconds(std::max<int64_t>(error.retry_after_us(), 0));
}

v1::ModelDescriptor DescriptorOf(const ModelInfo& model, const BlockLayout& layout) {
  v1::ModelDescriptor descriptor;
  descriptor.set_name(model.name);
  descriptor.set_fingerprint(model.fingerprint);
  descriptor.set_vocab_size(model.vocab_size);
  descriptor.set_max_context(model.max_context);
  descriptor.set_device(model.device);
  v1::BlockLayout* to = descriptor.mutable_layout();
  to->set_layers(layout.layers);
  to->set_kv_heads(layout.kv_heads);
  to->set_head_dim(layout.head_dim);
  to->set_block_tokens(layout.block_tokens);
  to->set_type(static_cast<uint32_t>(layout.type));
  to->set_alignment(layout.alignment);
  return descriptor;
}

}  // namespace tarn::engine
