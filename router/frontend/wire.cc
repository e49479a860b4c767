#include "router/frontend/wire.h"

#include "engine/wire/convert.h"

namespace tarn::router {
namespace {

v1::StageTimes TimesOf(const CompletionUsage& usage) {
  const GenerationReport& report = usage.first;
  v1::StageTimes times;
  times.set_tokenize_us(absl::ToInt64Microseconds(usage.tokenize));
  times.set_route_us(absl::ToInt64Microseconds(report.route));
  times.set_queue_us(absl::ToInt64Microseconds(report.queue));
  times.set_fetch_us(absl::ToInt64Microseconds(report.fetch));
  times.set_compute_us(absl::ToInt64Microseconds(report.compute));
  times.set_ttft_us(absl::ToInt64Microseconds(report.time_to_first_token));
  times.set_handover_us(absl::ToInt64Microseconds(report.handover));
  times.set_decode_us(absl::ToInt64Microseconds(report.decode));
  times.set_total_us(absl::ToInt64Microseconds(report.total));
  times.set_predicted_ttft_us(absl::ToInt64Microseconds(report.predicted_time_to_first_token));
  return times;
}

}  // namespace

v1::GenerateResponse ToProto(const CompletionChunk& chunk, bool with_logprobs) {
  v1::GenerateResponse response;
  response.set_choice(static_cast<uint32_t>(chunk.choice));
  response.set_text(chunk.text);
  for (const engine::SampledToken& token : chunk.tokens) {
    response.add_token_ids(token.token);
    if (with_logprobs) *response.add_logprobs() = engine::ToProto(token);
  }
  if (chunk.finish.has_value()) {
    response.set_finish_reason(*chunk.finish == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                                    : v1::FINISH_REASON_LENGTH);
  }
  return response;
}

v1::Usage ToProto(const CompletionUsage& usage) {
  v1::Usage proto;
  proto.set_prompt_tokens(static_cast<uint32_t>(usage.prompt_tokens));
  proto.set_completion_tokens(static_cast<uint32_t>(usage.completion_tokens));
  proto.set_cached_tokens(static_cast<uint32_t>(usage.cached_tokens));
  proto.mutable_prompt()->set_computed(static_cast<uint32_t>(usage.first.computed));
  proto.mutable_prompt()->set_local_hbm(static_cast<uint32_t>(usage.first.local_hbm));
  proto.mutable_prompt()->set_local_dram(static_cast<uint32_t>(usage.first.local_dram));
  proto.mutable_prompt()->set_local_ssd(static_cast<uint32_t>(usage.first.local_ssd));
  proto.mutable_prompt()->set_remote(static_cast<uint32_t>(usage.first.remote));
  proto.mutable_prompt()->set_remote_ssd(static_cast<uint32_t>(usage.first.remote_ssd));
  *proto.mutable_times() = TimesOf(usage);
  proto.set_prefill_node(usage.first.prefill_node);
  proto.set_decode_node(usage.first.decode_node);
  proto.set_attempts(static_cast<uint32_t>(usage.first.attempts));
  return proto;
}

}  // namespace tarn::router
