#include "prefill_node/session/prefill_request.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kvstore/wire/convert.h"

namespace tarn::prefill {
namespace {

constexpr int kMaxLocations = 64;

absl::StatusOr<std::vector<kvstore::BlockSource>> ParseBlock(const v1::PlannedBlock& block) {
  if (block.locations_size() > kMaxLocations) {
    return absl::InvalidArgumentError(
        absl::StrCat("locations has ", block.locations_size(), "; at most ", kMaxLocations));
  }
  std::vector<kvstore::BlockSource> sources;
  for (const v1::BlockLocation& location : block.locations()) {
    ASSIGN_OR_RETURN(kvstore::BlockSource source, kvstore::FromProto(location));
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace

absl::StatusOr<PrefillRequest> ParseRequest(const v1::PrefillStart& start,
                                            const engine::ModelInfo& model,
                                            const BlockLayout& layout,
                                            const RequestDefaults& defaults) {
  PrefillRequest request;
  ASSIGN_OR_RETURN(request.sequence, engine::SequenceFrom(start, model, layout));
  ASSIGN_OR_RETURN(request.timeout,
                   engine::TimeoutFrom("timeout_us", start.timeout_us(), defaults.timeout));
  ASSIGN_OR_RETURN(request.handover_timeout,
                   engine::TimeoutFrom("handover_timeout_us", start.handover_timeout_us(),
                                       defaults.handover_timeout));
  const int full_blocks = start.tokens_size() / layout.block_tokens;
  if (start.plan_size() > full_blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan has ", start.plan_size(), " blocks; tokens fill ", full_blocks));
  }
  for (int i = 0; i < start.plan_size(); ++i) {
    auto sources = ParseBlock(start.plan(i));
    if (!sources.ok()) return Annotate(sources.status(), "plan[" + std::to_string(i) + "]");
    request.plan.push_back(*std::move(sources));
  }
  request.priority = start.priority();
  return request;
}

}  // namespace tarn::prefill
