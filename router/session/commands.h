#pragma once

// What the router says to nodes, made from a request. Pure functions.

#include <span>
#include <vector>

#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "kvstore/directory/block_index.h"
#include "proto/decode.pb.h"
#include "proto/prefill.pb.h"
#include "router/session/gateway.h"

namespace tarn::router {

// One leg of a request: `tokens` are the prompt and what was generated before, `wire_id` names the
// leg.
struct LegContext {
  RequestId wire_id;
  const GenerationRequest& request;
  std::span<const TokenId> tokens;
  absl::Duration time_left;  // infinite: the node's default
};

v1::DecodeCommand MakeAdmit(const LegContext& leg, int remaining_tokens);
v1::PrefillCommand MakePrefillStart(const LegContext& leg, absl::Duration handover_timeout);
v1::DecodeCommand MakeDecodeStart(RequestId wire_id, const engine::SampledToken& first_token);
v1::DecodeCommand MakeDecodeCancel(RequestId wire_id);
v1::PrefillCommand MakePrefillRelease(RequestId wire_id);

// Adds where the first `blocks` of `keys` can be pulled from: at most `max_sources` places for
// each, `node` itself left out.
void AddPlan(const kvstore::BlockIndex& index, std::span<const BlockKey> keys, int blocks,
             const NodeId& node, int max_sources, v1::PrefillStart& start);

}  // namespace tarn::router
