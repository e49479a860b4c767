#include "sim/cost/fair_links.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>

namespace tarn::sim {

// Time is told in whole nanoseconds: what is left of a flow for less than two is none.
constexpr double kResolution = 2e-9;

FairLinks::Link FairLinks::Add(double bytes_per_s) {
  CHECK_GT(bytes_per_s, 0);
  links_.push_back({.bytes_per_s = bytes_per_s});
  return static_cast<Link>(links_.size()) - 1;
}

FairLinks::Flow FairLinks::Start(std::initializer_list<Link> path, double bytes, absl::Time now) {
  CHECK(path.size() > 0 && path.size() <= kMaxPath);
  Drain(now);
  FlowState flow{.id = ++last_, .bytes = bytes, .left = bytes};
  for (const Link link : path) {
    flow.path[flow.links++] = link;
    ++links_[link].flows;
  }
  flows_.push_back(flow);
  if (!ShareAlone(flows_.back())) Share();
  FindNextEnd();
  return flow.id;
}

// A flow that shares no link takes nothing from the others: the usual case, and quick.
bool FairLinks::ShareAlone(FlowState& flow) const {
  double rate = std::numeric_limits<double>::max();
  for (int i = 0; i < flow.links; ++i) {
    const LinkState& link = links_[flow.path[i]];
    if (link.flows > 1) return false;
    rate = std::min(rate, link.bytes_per_s);
  }
  flow.rate = rate;
  return true;
}

std::vector<FairLinks::Flow> FairLinks::TakeEnded(absl::Time now) {
  Drain(now);
  std::vector<Flow> ended;
  bool shared = false;
  for (const FlowState& flow : flows_) {
    if (flow.left > flow.rate * kResolution) continue;
    ended.push_back(flow.id);
    for (int i = 0; i < flow.links; ++i) {
      LinkState& link = links_[flow.path[i]];
      shared |= --link.flows > 0;
      link.bytes += flow.bytes;
    }
  }
  if (ended.empty()) return ended;
  std::erase_if(flows_, [](const FlowState& f) { return f.left <= f.rate * kResolution; });
  if (shared) Share();
  FindNextEnd();
  return ended;
}

void FairLinks::Drain(absl::Time now) {
  if (now_ != absl::InfinitePast()) {
    CHECK_GE(now, now_) << "time does not go backwards";
    const double seconds = absl::ToDoubleSeconds(now - now_);
    if (seconds > 0) {
      for (FlowState& flow : flows_) flow.left = std::max(0.0, flow.left - seconds * flow.rate);
    }
  }
  now_ = now;
}

void FairLinks::Share() {
  used_.clear();
  for (FlowState& flow : flows_) {
    flow.open = true;
    for (int i = 0; i < flow.links; ++i) {
      LinkState& link = links_[flow.path[i]];
      if (link.open++ > 0) continue;
      link.left = link.bytes_per_s;
      used_.push_back(flow.path[i]);
    }
  }
  Fill();
}

// Again and again, the link that gives its flows least fixes their rates.
void FairLinks::Fill() {
  for (size_t open = flows_.size(); open > 0;) {
    Link tightest = -1;
    double least = std::numeric_limits<double>::max();
    for (const Link id : used_) {
      const LinkState& link = links_[id];
      if (link.open == 0 || link.left / link.open >= least) continue;
      least = link.left / link.open;
      tightest = id;
    }
    for (FlowState& flow : flows_) {
      const auto end = flow.path.begin() + flow.links;
      if (!flow.open || std::find(flow.path.begin(), end, tightest) == end) continue;
      flow.open = false;
      flow.rate = least;
      --open;
      for (int i = 0; i < flow.links; ++i) {
        LinkState& link = links_[flow.path[i]];
        link.left = std::max(0.0, link.left - least);
        --link.open;
      }
    }
  }
}

void FairLinks::FindNextEnd() {
  double least = std::numeric_limits<double>::max();
  for (const FlowState& flow : flows_) {
    least = std::min(least, flow.left / std::max(flow.rate, 1.0));
  }
  next_end_ = flows_.empty() ? absl::InfiniteFuture()
                             : now_ + absl::Nanoseconds(static_cast<int64_t>(least * 1e9) + 1);
}

double FairLinks::rate(Flow flow) const {
  for (const FlowState& state : flows_) {
    if (state.id == flow) return state.rate;
  }
  return 0;
}

}  // namespace tarn::sim
