#include "router/session/explain.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::router {
namespace {

v1::ExplainedNode ToProto(const Candidate& candidate, v1::Role role) {
  v1::ExplainedNode node;
  node.set_node_id(candidate.node.value());
  node.set_role(role);
  node.set_eligibility(Name(candidate.eligibility));
  node.set_hbm_blocks(static_cast<uint32_t>(candidate.holdings.local_hbm));
  node.set_memory_blocks(static_cast<uint32_t>(candidate.holdings.local));
  node.set_blocks(static_cast<uint32_t>(candidate.holdings.local_ssd));
  return node;
}

v1::ExplainedNode ToProto(const PrefillCandidate& candidate) {
  v1::ExplainedNode node = ToProto(candidate, v1::ROLE_PREFILL);
  const PrefillPrediction& predicted = candidate.predicted;
  node.set_ahead_us(predicted.ahead_us);
  node.set_queue_us(predicted.queue_us);
  node.set_fetch_us(predicted.fetch_us);
  node.set_compute_us(predicted.compute_us);
  node.set_compute_tokens(static_cast<uint64_t>(predicted.compute_tokens));
  node.set_local_blocks(static_cast<uint32_t>(predicted.local_blocks));
  node.set_pull_blocks(static_cast<uint32_t>(predicted.pull_blocks));
  return node;
}

v1::ExplainedNode ToProto(const DecodeCandidate& candidate) {
  v1::ExplainedNode node = ToProto(candidate, v1::ROLE_DECODE);
  node.set_handover_us(candidate.predicted.handover_us);
  node.set_step_us(candidate.predicted.step_us);
  return node;
}

}  // namespace

v1::ExplainResponse ToProto(const Explanation& explanation) {
  v1::ExplainResponse response;
  for (const PrefillCandidate& node : explanation.prefill) *response.add_nodes() = ToProto(node);
  for (const DecodeCandidate& node : explanation.decode) *response.add_nodes() = ToProto(node);
  if (const auto* refusal = std::get_if<Refusal>(&explanation.result)) {
    response.set_refused(Message(refusal->status));
    response.set_reason(Name(refusal->reason));
  } else if (const auto* hold = std::get_if<Hold>(&explanation.result)) {
    response.set_held(absl::StrCat("every node has enough to do; asked again in ",
                                   absl::FormatDuration(hold->wait)));
  } else {
    const auto& decision = std::get<RouteDecision>(explanation.result);
    response.set_prefill_node(decision.prefill.node.value());
    if (decision.decode.has_value()) response.set_decode_node(decision.decode->node.value());
  }
  return response;
}

}  // namespace tarn::router
