#include "router/policy/cluster_view.h"

#include <algorithm>

namespace tarn::router {

int NodeView::running() const { return std::max(0, load_.running - ended_count_) + placed_count_; }

int NodeView::pages_taken() const {
  return std::max(0, load_.hbm_pages_reserved - ended_.pages) + placed_.pages;
}

int64_t NodeView::kv_tokens() const {
  return std::max<int64_t>(0, load_.kv_tokens - ended_.tokens) + placed_.tokens;
}

double NodeView::waiting_us(absl::Time now, const StepTime& step) const {
  const double chunk = step_tokens();
  double waiting =
      step.PredictInSteps(static_cast<double>(load_.waiting_tokens), load_.waiting_attended, chunk);
  if (reported()) waiting -= absl::ToDoubleMicroseconds(now - reported_at_);
  return std::max(0.0, waiting) +
         step.PredictInSteps(static_cast<double>(placed_.tokens), placed_.attended, chunk);
}

void ClusterView::Join(const NodeId& node, NodeRole role) {
  NodeView view;
  view.role_ = role;
  nodes_.insert_or_assign(node, std::move(view));
}

void ClusterView::Leave(const NodeId& node) { nodes_.erase(node); }

void ClusterView::SetConnected(const NodeId& node, bool connected) {
  if (NodeView* view = FindMutable(node)) view->connected_ = connected;
}

void ClusterView::Report(const NodeId& node, const NodeLoad& load, absl::Time now) {
  NodeView* view = FindMutable(node);
  if (view == nullptr) return;
  view->load_ = load;
  view->reported_at_ = now;
  for (auto& [request, placement] : view->placements_) placement.in_report = true;
  view->placed_ = view->ended_ = Work();
  view->placed_count_ = view->ended_count_ = 0;
}

void ClusterView::Place(const NodeId& node, RequestId request, const Work& work) {
  NodeView* view = FindMutable(node);
  if (view == nullptr ||
      !view->placements_.try_emplace(request, NodeView::Placement{work}).second) {
    return;
  }
  view->placed_.tokens += work.tokens;
  view->placed_.attended += work.attended;
  view->placed_.pages += work.pages;
  ++view->placed_count_;
}

void ClusterView::End(const NodeId& node, RequestId request) {
  NodeView* view = FindMutable(node);
  if (view == nullptr) return;
  const auto it = view->placements_.find(request);
  if (it == view->placements_.end()) return;
  const NodeView::Placement placement = it->second;
  view->placements_.erase(it);
  if (placement.in_report) {
    view->ended_.tokens += placement.work.tokens;
    view->ended_.attended += placement.work.attended;
    view->ended_.pages += placement.work.pages;
    ++view->ended_count_;
  } else {
    view->placed_.tokens -= placement.work.tokens;
    view->placed_.attended -= placement.work.attended;
    view->placed_.pages -= placement.work.pages;
    --view->placed_count_;
  }
}

const NodeView* ClusterView::Find(const NodeId& node) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second;
}

NodeView* ClusterView::FindMutable(const NodeId& node) {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second;
}

}  // namespace tarn::router
