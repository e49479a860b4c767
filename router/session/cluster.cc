#include "router/session/cluster.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config/command_line.h"
#include "router/session/explain.h"

namespace tarn::router {
namespace {

constexpr absl::Duration kRetryWhenShed = absl::Seconds(1);

}  // namespace

Cluster::Cluster(const ClusterOptions& options, ClusterParts parts, Random random)
    : options_(options),
      parts_(std::move(parts)),
      random_(std::move(random)),
      started_(parts_.loop->Now()),
      queue_(options.queue),
      nodes_(parts_.loop, parts_.streams, options.reconnect, MakeListener()),
      context_(MakeContext(parts_, options.requests)) {
  // A request makes at most one leg at each role for each try, and one for each node that is full:
  // those are bounded by the waits, once a request may wait for room.
  const RequestLimits& limits = options.requests.limits;
  CHECK_LT(
      2 * (1 + limits.max_attempts + limits.max_moves) + limits.max_refusals + limits.max_waits,
      1 << kLegBits);
}

Cluster::~Cluster() {
  *alive_ = false;
  parts_.loop->CancelTimer(pump_);
  for (const auto& [id, request] : requests_) request->Detach();
}

RequestContext Cluster::MakeContext(const ClusterParts& parts, const RequestOptions& options) {
  return {.loop = parts.loop,
          .nodes = &nodes_,
          .metrics = parts.metrics,
          .random = &random_,
          .queue = &queue_,
          .options = options,
          .index = parts.index,
          .find = [this](RequestId id) { return Find(id); },
          .ended =
              [this](RequestId id) {
                requests_.erase(id);
                parts_.metrics->requests_in_flight.Set(static_cast<double>(requests_.size()));
              },
          .pump = [this](absl::Duration after) { PumpAfter(after); }};
}

// Always from the loop: starting a request may end others, and whoever asks is in the middle of
// something.
void Cluster::PumpAfter(absl::Duration after) {
  const absl::Time when = parts_.loop->Now() + after;
  if (when >= pump_at_) return;
  parts_.loop->CancelTimer(pump_);
  pump_at_ = when;
  pump_ = parts_.loop->PostAt(when, [this] {
    pump_at_ = absl::InfiniteFuture();
    Pump();
  });
}

void Cluster::Pump() {
  while (const std::optional<RequestId> id = queue_.Next()) {
    const std::optional<absl::Duration> wait = Find(*id)->TryStart();
    if (wait.has_value()) return PumpAfter(*wait);
  }
}

ClusterNodes::Listener Cluster::MakeListener() {
  return {.on_prefill_events =
              [this](v1::PrefillEvents events) {
                for (v1::PrefillEvent& event : *events.mutable_events()) {
                  ActiveRequest* request = Find(RequestOf(event.request_id()));
                  if (request != nullptr) request->OnPrefillEvent(std::move(event));
                }
              },
          .on_decode_events =
              [this](v1::DecodeEvents events) {
                for (v1::DecodeEvent& event : *events.mutable_events()) {
                  ActiveRequest* request = Find(RequestOf(event.request_id()));
                  if (request != nullptr) request->OnDecodeEvent(std::move(event));
                }
              },
          .on_lost = [this](const NodeId& node) { NodeLost(node); },
          .on_changed =
              [this] {
                if (queue_.size() > 0) PumpAfter(absl::ZeroDuration());
                if (parts_.on_ready) parts_.on_ready(Ready());
              }};
}

std::unique_ptr<Generation> Cluster::Start(GenerationRequest request, GenerationSink* sink) {
  const absl::Status admissible = Admissible();
  const RequestId id = DrawId();
  auto active = std::make_unique<ActiveRequest>(&context_, id, std::move(request), sink);
  requests_.emplace(id, active.get());
  parts_.metrics->requests_in_flight.Set(static_cast<double>(requests_.size()));
  parts_.loop->Post([this, alive = alive_, id, admissible] {
    ActiveRequest* request = *alive ? Find(id) : nullptr;
    if (request == nullptr) return;
    admissible.ok() ? request->Begin() : request->Refuse(admissible, kRetryWhenShed);
  });
  return active;
}

absl::Status Cluster::Admissible() const {
  if (draining_) return absl::UnavailableError("this router is shutting down: use another");
  if (requests_.size() < static_cast<size_t>(options_.max_in_flight)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the router has ", requests_.size(),
                                                   " requests under way, its limit is ",
                                                   options_.max_in_flight));
}

absl::Status Cluster::Ready() const {
  if (draining_) return absl::UnavailableError("this router is shutting down");
  return nodes_.Ready();
}

void Cluster::Drain() {
  draining_ = true;
  if (parts_.on_ready) parts_.on_ready(Ready());
}

RequestId Cluster::DrawId() {
  while (true) {
    const RequestId id = RequestOf(random_.Next());
    if (id.value() != 0 && !requests_.contains(id)) return id;
  }
}

ActiveRequest* Cluster::Find(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second;
}

void Cluster::NodeLost(const NodeId& node) {
  // Callbacks change the table; and sorted, so that equal runs stay equal.
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const RequestId id : ids) {
    if (ActiveRequest* request = Find(id)) request->OnNodeLost(node);
  }
}

absl::StatusOr<v1::ExplainResponse> Cluster::Explain(const GenerationRequest& request) const {
  const std::optional<ServedModel>& model = nodes_.model();
  if (!model.has_value()) return absl::UnavailableError("no node has joined the cluster yet");
  std::vector<BlockKey> keys;
  ExtendKeys(*model, request.salt, request.prompt, keys);
  const absl::Time now = parts_.loop->Now();
  const RouteRequest route = {.tokens = static_cast<int64_t>(request.prompt.size()),
                              .max_new_tokens = request.max_new_tokens,
                              .time_left = request.deadline - now,
                              .slo = request.slo,
                              .tokens_ahead = queue_.TokensAhead(request.priority),
                              .may_wait = true,
                              .max_node_queue = options_.requests.max_node_queue};
  v1::ExplainResponse response =
      ToProto(router::Explain(route, nodes_.view(), parts_.index().Match(keys), model->block, now));
  response.set_prompt_tokens(static_cast<uint32_t>(request.prompt.size()));
  response.set_block_tokens(static_cast<uint32_t>(model->block.tokens));
  response.set_queued(static_cast<uint32_t>(queue_.size()));
  if (request.slo.ttft != absl::InfiniteDuration()) {
    response.set_ttft_slo_us(absl::ToInt64Microseconds(request.slo.ttft));
  }
  if (request.slo.tpot != absl::InfiniteDuration()) {
    response.set_tpot_slo_us(absl::ToInt64Microseconds(request.slo.tpot));
  }
  return response;
}

v1::GetStatusResponse Cluster::Status() const {
  v1::GetStatusResponse status;
  status.set_router_id(options_.router_id);
  status.set_version(kVersion);
  for (v1::NodeStatus& node : nodes_.Status()) {
    const NodeId id(node.info().node_id());
    node.set_indexed_blocks(parts_.index().BlocksOf(id));
    *status.add_nodes() = std::move(node);
  }
  const RouterMetrics& metrics = *parts_.metrics;
  const uint64_t failed = metrics.requests_failed.Value() + metrics.requests_refused.Value();
  status.set_requests_running(requests_.size());
  status.set_requests_total(requests_.size() + failed + metrics.requests_finished.Value() +
                            metrics.requests_cancelled.Value());
  status.set_requests_failed(failed);
  status.set_prompt_tokens_total(metrics.prompt_tokens.Value());
  status.set_cached_tokens_total(metrics.cached_prompt_tokens.Value());
  status.set_generation_tokens_total(metrics.generation_tokens.Value());
  status.set_uptime_us(absl::ToInt64Microseconds(parts_.loop->Now() - started_));
  status.set_ready(Ready().ok());
  return status;
}

}  // namespace tarn::router
