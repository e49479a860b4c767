#pragma once

// What makes a node a store: it takes over blocks of others, by pulling them into its own pages.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/runtime/event_loop.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/core/admission.h"
#include "kvstore/core/hot_blocks.h"
#include "kvstore/server/neighbours.h"

namespace tarn::kvstore {

struct AdopterOptions {
  NodeId self;
  int max_pulls = 8;         // at a time
  size_t max_queue = 65536;  // blocks to look at; the oldest are forgotten beyond
  // Those of nodes that are about to leave come first, in their order; what is more is refused.
  size_t max_urgent = 4096;
  absl::Duration pull_timeout = absl::Seconds(30);
  HotBlocks::Options hot;
};

// Blocks.
struct AdopterStats {
  std::map<AdmissionVerdict, uint64_t> verdicts;  // of those that were not here
  uint64_t here = 0;                              // were here already when their turn came
  uint64_t forgotten = 0;                         // without a look
  uint64_t taken = 0, failed = 0;
};

// Loop-only. Never holds a page longer than its pull.
class Adopter {
 public:
  // The pointers outlive the adopter.
  Adopter(const AdopterOptions& options, EventLoop* loop, NodePool* pool,
          const AdmissionPolicy* policy, Neighbours neighbours)
      : options_(options),
        loop_(loop),
        pool_(pool),
        policy_(policy),
        neighbours_(std::move(neighbours)),
        hot_(options.hot) {}

  // `node` has this block now, as the index knows. If it is one that computes, and the block has
  // come into its arena, then somebody needed it.
  void Consider(const NodeId& node, const InventoryChange& change);

  // Considers nothing more. Pulls under way go on.
  void Stop();

  const AdopterStats& Stats() const { return stats_; }

 private:
  struct Candidate {
    BlockKey key;
    BlockTraits traits;
  };
  struct Pull {
    PageReservation page;
    std::unique_ptr<NodePool::Ticket> ticket;
  };
  void Enqueue(const InventoryChange& change, bool urgent);
  void Pump();
  bool Wanted(const BlockKey& key);
  void StartPull(const Candidate& candidate);

  const AdopterOptions options_;
  EventLoop* const loop_;
  NodePool* const pool_;
  const AdmissionPolicy* const policy_;
  const Neighbours neighbours_;
  HotBlocks hot_;
  bool stopped_ = false;
  std::deque<Candidate> urgent_, queue_;
  absl::flat_hash_set<BlockKey> queued_;
  absl::flat_hash_map<BlockKey, Pull> pulls_;
  AdopterStats stats_;
};

}  // namespace tarn::kvstore
