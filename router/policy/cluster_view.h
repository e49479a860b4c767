#pragma once

// What the router believes of the nodes it can choose from: what they last said of themselves, and
// what this router has done to them since.
//
// A node reports some times a second; in between a router may place hundreds of requests. Without
// its own placements in the picture it would send them all to the node that looked best at the last
// report (herding). So each placement counts until the next report, which includes it, or until its
// end; and what ends between two reports counts as given back.
//
// Pure and thread-compatible. Ordered by NodeId, so that equal histories give equal views.

#include <cstdint>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/base/step_time.h"

namespace tarn::router {

enum class NodeRole : uint8_t { kPrefill, kDecode, kStore };

// A node's own words; times in microseconds, 0 where not yet measured.
struct NodeLoad {
  int hbm_pages = 0;
  int hbm_pages_reserved = 0;  // promised to requests
  int running = 0;             // with those that have a seat and wait for their KV
  int max_running = 0;         // 0: no limit
  int64_t waiting_tokens = 0;  // still to compute
  double waiting_attended = 0;
  int64_t kv_tokens = 0;     // context of the running sequences
  absl::Duration next_seat;  // until one of them ends at the latest; zero: not known
  StepTime step_time;
  int step_tokens = 0;  // most tokens of one step; 0: not said
  // Smoothed, for as long as step_time is not measured.
  double prefill_us_per_token = 0;
  double step_us = 0;
  double pull_bytes_per_us = 0;
  double ssd_read_bytes_per_us = 0;
  bool draining = false;
};

// What one request takes of a node.
struct Work {
  int64_t tokens = 0;   // to compute there (prefill), or of context (decode)
  double attended = 0;  // by the tokens to compute
  int pages = 0;
};

class NodeView {
 public:
  NodeRole role() const { return role_; }
  bool connected() const { return connected_; }
  bool reported() const { return reported_at_ != absl::InfinitePast(); }
  absl::Time reported_at() const { return reported_at_; }
  const NodeLoad& load() const { return load_; }

  // Estimates of now: the report, plus what was placed since, minus what ended since.
  int running() const;
  int pages_taken() const;
  int64_t kv_tokens() const;
  // How long the work that waits will take. What was reported shrinks while nothing newer is known.
  double waiting_us(absl::Time now, const StepTime& step) const;
  int step_tokens() const { return load_.step_tokens > 0 ? load_.step_tokens : kStepTokens; }

 private:
  friend class ClusterView;
  static constexpr int kStepTokens = 512;
  struct Placement {
    Work work;
    bool in_report = false;
  };

  NodeRole role_ = NodeRole::kPrefill;
  bool connected_ = false;
  absl::Time reported_at_ = absl::InfinitePast();
  NodeLoad load_;
  absl::flat_hash_map<RequestId, Placement> placements_;
  // Sums over the placements that the report does not include yet, and over those that it does and
  // that have ended.
  Work placed_, ended_;
  int placed_count_ = 0, ended_count_ = 0;
};

class ClusterView {
 public:
  // Adds a node, or a new life of it: nothing is known of its load.
  void Join(const NodeId& node, NodeRole role);
  void Leave(const NodeId& node);

  // The rest ignores unknown nodes.

  // Whether the router's session with the node is up: nodes without one are not chosen.
  void SetConnected(const NodeId& node, bool connected);
  void Report(const NodeId& node, const NodeLoad& load, absl::Time now);
  // `request` is unique among the placements on this node.
  void Place(const NodeId& node, RequestId request, const Work& work);
  // The work of `request` is done or given up; harmless if there is none.
  void End(const NodeId& node, RequestId request);

  using Nodes = absl::btree_map<NodeId, NodeView>;
  const Nodes& nodes() const { return nodes_; }
  const NodeView* Find(const NodeId& node) const;

 private:
  NodeView* FindMutable(const NodeId& node);
  Nodes nodes_;
};

}  // namespace tarn::router
