#include "router/session/commands.h"

#include <algorithm>

#include "engine/wire/convert.h"
#include "kvstore/wire/convert.h"

namespace tarn::router {
namespace {

// Nodes refuse longer ones.
constexpr absl::Duration kLongestTimeout = absl::Hours(24);

int64_t TimeoutUs(absl::Duration time_left) {
  if (time_left == absl::InfiniteDuration()) return 0;
  return std::max<int64_t>(1, absl::ToInt64Microseconds(std::min(time_left, kLongestTimeout)));
}

// The fields that Admit and PrefillStart share.
template <typename Proto>
void FillSequence(const LegContext& leg, Proto& proto) {
  const GenerationRequest& request = leg.request;
  proto.mutable_tokens()->Assign(leg.tokens.begin(), leg.tokens.end());
  proto.set_prompt_length(static_cast<uint32_t>(request.prompt.size()));
  *proto.mutable_sampling() = engine::ToProto(request.sampling);
  proto.mutable_end_token_ids()->Assign(request.end_tokens.begin(), request.end_tokens.end());
  proto.set_salt(request.salt);
  proto.set_tenant(request.tenant);
  proto.set_timeout_us(TimeoutUs(leg.time_left));
  proto.set_priority(request.priority);
}

}  // namespace

v1::DecodeCommand MakeAdmit(const LegContext& leg, int remaining_tokens) {
  v1::DecodeCommand command;
  command.set_request_id(leg.wire_id.value());
  FillSequence(leg, *command.mutable_admit());
  command.mutable_admit()->set_max_new_tokens(static_cast<uint32_t>(remaining_tokens));
  return command;
}

v1::PrefillCommand MakePrefillStart(const LegContext& leg, absl::Duration handover_timeout) {
  v1::PrefillCommand command;
  command.set_request_id(leg.wire_id.value());
  FillSequence(leg, *command.mutable_start());
  command.mutable_start()->set_handover_timeout_us(
      TimeoutUs(std::min(handover_timeout, leg.time_left)));
  return command;
}

v1::DecodeCommand MakeDecodeStart(RequestId wire_id, const engine::SampledToken& first_token) {
  v1::DecodeCommand command;
  command.set_request_id(wire_id.value());
  *command.mutable_start()->mutable_first_token() = engine::ToProto(first_token);
  return command;
}

v1::DecodeCommand MakeDecodeCancel(RequestId wire_id) {
  v1::DecodeCommand command;
  command.set_request_id(wire_id.value());
  command.mutable_cancel();
  return command;
}

v1::PrefillCommand MakePrefillRelease(RequestId wire_id) {
  v1::PrefillCommand command;
  command.set_request_id(wire_id.value());
  command.mutable_release();
  return command;
}

void AddPlan(const kvstore::BlockIndex& index, std::span<const BlockKey> keys, int blocks,
             const NodeId& node, int max_sources, v1::PrefillStart& start) {
  const size_t count = std::min(keys.size(), static_cast<size_t>(std::max(0, blocks)));
  for (const BlockKey& key : keys.first(count)) {
    v1::PlannedBlock& planned = *start.add_plan();
    const auto max = static_cast<size_t>(std::max(0, max_sources));
    for (const kvstore::BlockSource& source : index.Sources(key, node, max)) {
      *planned.add_locations() = kvstore::ToProto(source);
    }
  }
}

}  // namespace tarn::router
