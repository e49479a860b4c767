#include "router/session/cluster_nodes.h"

#include <glog/logging.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kvstore/wire/convert.h"

namespace tarn::router {
namespace {

std::optional<NodeRole> RoleOf(const v1::NodeInfo& info) {
  switch (info.role()) {
    case v1::ROLE_PREFILL:
      return NodeRole::kPrefill;
    case v1::ROLE_DECODE:
      return NodeRole::kDecode;
    case v1::ROLE_STORE:
      return NodeRole::kStore;
    default:
      return std::nullopt;
  }
}

NodeLoad LoadOf(const v1::NodeLoad& load, v1::Role role) {
  // Who waits at a decode node has a seat.
  const uint32_t seated = role == v1::ROLE_DECODE ? load.waiting() : 0;
  return {.hbm_pages = static_cast<int>(load.hbm_pages()),
          .hbm_pages_reserved = static_cast<int>(load.hbm_pages_reserved()),
          .running = static_cast<int>(load.running() + seated),
          .max_running = static_cast<int>(load.max_running()),
          .waiting_tokens = static_cast<int64_t>(load.waiting_tokens()),
          .waiting_attended = load.waiting_attended(),
          .kv_tokens = static_cast<int64_t>(load.kv_tokens()),
          .next_seat = absl::Microseconds(load.next_seat_us()),
          .step_time = kvstore::FromProto(load.step_time()),
          .step_tokens = static_cast<int>(load.step_tokens()),
          .prefill_us_per_token = load.prefill_us_per_token(),
          .step_us = load.step_us(),
          .pull_bytes_per_us = load.pull_bytes_per_us(),
          .ssd_read_bytes_per_us = load.ssd_read_bytes_per_us(),
          .draining = load.draining()};
}

}  // namespace

BlockKey ServedModel::RootFor(const std::string& salt) const {
  const BlockDomain domain = {.model_fingerprint = descriptor.fingerprint(),
                              .layout_fingerprint = layout_fingerprint,
                              .salt = salt};
  return domain.Root();
}

void ExtendKeys(const ServedModel& model, const std::string& salt, std::span<const TokenId> tokens,
                std::vector<BlockKey>& keys) {
  const size_t step = static_cast<size_t>(model.block.tokens);
  BlockKey parent = keys.empty() ? model.RootFor(salt) : keys.back();
  for (size_t begin = keys.size() * step; begin + step <= tokens.size(); begin += step) {
    parent = ChildKey(parent, tokens.subspan(begin, step));
    keys.push_back(parent);
  }
}

ClusterNodes::ClusterNodes(EventLoop* loop, NodeStreams* streams, const ReconnectPauses& pauses,
                           Listener listener)
    : loop_(loop), streams_(streams), pauses_(pauses), listener_(std::move(listener)) {}

ClusterNodes::~ClusterNodes() = default;

absl::Status ClusterNodes::AcceptModel(const v1::NodeInfo& info) {
  ASSIGN_OR_RETURN(const BlockLayout layout, kvstore::FromProto(info.model().layout()));
  RETURN_IF_ERROR(layout.Validate());
  if (!model_.has_value()) {
    model_ = ServedModel{info.model(),
                         {layout.block_tokens, static_cast<double>(layout.page_bytes())},
                         layout.Fingerprint()};
    LOG(INFO) << "the cluster serves " << info.model().name() << ", " << layout.ToString();
    return absl::OkStatus();
  }
  if (info.model().fingerprint() != model_->descriptor.fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "its model is ", info.model().name(), " (", absl::Hex(info.model().fingerprint()),
        "), the cluster's is ", model_->descriptor.name(), " (",
        absl::Hex(model_->descriptor.fingerprint()), ")"));
  }
  if (layout.Fingerprint() != model_->layout_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat("its block layout is ", layout.ToString(), ", not the cluster's"));
  }
  return absl::OkStatus();
}

void ClusterNodes::Joined(const v1::NodeInfo& info) {
  const NodeId id(info.node_id());
  if (!RoleOf(info).has_value()) {
    LOG(WARNING) << id << " has a role that this router does not know: ignored";
    return;
  }
  if (*RoleOf(info) != NodeRole::kStore) {
    if (const absl::Status accepted = AcceptModel(info); !accepted.ok()) {
      LOG(ERROR) << id << " gets no work: " << Message(accepted);
      return;
    }
  }
  const auto known = nodes_.find(id);
  if (known != nodes_.end() && known->second.info.incarnation() == info.incarnation()) {
    known->second.info = info;
    known->second.listed = true;
    Enter(id, known->second);
    return;
  }
  if (known != nodes_.end()) Drop(id);
  Node& node = nodes_[id];
  node.info = info;
  LOG(INFO) << kvstore::Describe(info) << " joined at " << info.rpc_address();
  Enter(id, node);
  OpenSession(id, node);
}

void ClusterNodes::Enter(const NodeId& id, const Node& node) {
  if (view_.Find(id) == nullptr) view_.Join(id, *RoleOf(node.info));
  view_.SetConnected(id, node.up());
  listener_.on_changed();
}

void ClusterNodes::Left(const NodeId& node, Incarnation incarnation) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.info.incarnation() != incarnation.value()) return;
  LOG(INFO) << node << " left";
  it->second.listed = false;
  view_.Leave(node);
  // A session that is up may carry requests: it ends by itself when the node does.
  if (!it->second.up()) Drop(node);
  listener_.on_changed();
}

void ClusterNodes::Reported(const NodeId& node, const v1::NodeLoad& load) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  it->second.load = load;
  it->second.load_at = loop_->Now();
  view_.Report(node, LoadOf(load, it->second.info.role()), loop_->Now());
  listener_.on_changed();
}

void ClusterNodes::OpenSession(const NodeId& id, Node& node) {
  const std::string address = node.info.rpc_address();
  const auto on_up = [this, id] { Up(id); };
  const auto on_down = [this, id](const absl::Status& status) { Down(id, status); };
  if (node.info.role() == v1::ROLE_PREFILL) {
    node.prefill = std::make_unique<PrefillSession>(
        loop_, pauses_,
        [this, address](auto handler) {
          return streams_->OpenPrefill(address, std::move(handler));
        },
        PrefillSession::Listener{on_up, listener_.on_prefill_events, on_down});
  } else if (node.info.role() == v1::ROLE_DECODE) {
    node.decode = std::make_unique<DecodeSession>(
        loop_, pauses_,
        [this, address](auto handler) { return streams_->OpenDecode(address, std::move(handler)); },
        DecodeSession::Listener{on_up, listener_.on_decode_events, on_down});
  }
}

void ClusterNodes::Up(const NodeId& id) {
  LOG(INFO) << "session with " << id << " is up";
  view_.SetConnected(id, true);
  listener_.on_changed();
}

void ClusterNodes::Down(const NodeId& id, const absl::Status& status) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  VLOG(1) << "session with " << id << " is down: " << status;
  view_.SetConnected(id, false);
  if (!it->second.listed) return Drop(id);
  listener_.on_lost(id);
  listener_.on_changed();
}

void ClusterNodes::Drop(const NodeId& id) {
  view_.Leave(id);
  nodes_.erase(id);
  listener_.on_lost(id);
  if (nodes_.empty()) model_.reset();
  listener_.on_changed();
}

bool ClusterNodes::Send(const NodeId& node, v1::PrefillCommand command) {
  const auto it = nodes_.find(node);
  return it != nodes_.end() && it->second.prefill && it->second.prefill->Send(std::move(command));
}

bool ClusterNodes::Send(const NodeId& node, v1::DecodeCommand command) {
  const auto it = nodes_.find(node);
  return it != nodes_.end() && it->second.decode && it->second.decode->Send(std::move(command));
}

absl::Status ClusterNodes::Ready() const {
  bool prefill = false, decode = false;
  for (const auto& [id, node] : view_.nodes()) {
    if (!node.connected() || node.load().draining) continue;
    prefill |= node.role() == NodeRole::kPrefill;
    decode |= node.role() == NodeRole::kDecode;
  }
  if (prefill && decode) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("waiting for a ",
                                             !prefill && !decode ? "prefill node and a decode"
                                             : prefill           ? "decode"
                                                                 : "prefill",
                                             " node"));
}

std::vector<v1::NodeStatus> ClusterNodes::Status() const {
  std::vector<v1::NodeStatus> all;
  for (const auto& [id, node] : nodes_) {
    v1::NodeStatus& status = all.emplace_back();
    *status.mutable_info() = node.info;
    *status.mutable_load() = node.load;
    status.set_connected(node.up());
    if (node.load_at != absl::InfinitePast()) {
      status.set_load_age_us(absl::ToInt64Microseconds(loop_->Now() - node.load_at));
    }
  }
  return all;
}

}  // namespace tarn::router
