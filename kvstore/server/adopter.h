#pragma once

// What makes a node a store: it takes over blocks of others, by pulling them into its own pages.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/runtime/event_loop.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/core/admission.h"
#include "kvstore/directory/block_index.h"

namespace tarn::kvstore {

struct AdopterOptions {
  NodeId self;
  int max_pulls = 8;         // at a time
  size_t max_queue = 65536;  // blocks to look at; the oldest are forgotten beyond
  absl::Duration pull_timeout = absl::Seconds(30);
};

// Loop-only. Never holds a page longer than its pull.
class Adopter {
 public:
  // Where blocks are, now.
  using Index = std::function<const BlockIndex&()>;

  // The stores there are, now; this one, with its own figures, among them.
  using Stores = std::function<std::vector<StoreView>(const NodePoolStats& own)>;

  // The pointers outlive the adopter.
  Adopter(const AdopterOptions& options, EventLoop* loop, NodePool* pool,
          const AdmissionPolicy* policy, Index index, Stores stores)
      : options_(options),
        loop_(loop),
        pool_(pool),
        policy_(policy),
        index_(std::move(index)),
        stores_(std::move(stores)) {}

  // Somebody has this block, as the index knows.
  void Consider(const BlockKey& key);

 private:
  void Pump();
  bool Wanted(const BlockKey& key) const;
  void StartPull(const BlockKey& key);

  struct Pull {
    PageReservation page;
    std::unique_ptr<NodePool::Ticket> ticket;
  };

  const AdopterOptions options_;
  EventLoop* const loop_;
  NodePool* const pool_;
  const AdmissionPolicy* const policy_;
  const Index index_;
  const Stores stores_;
  std::deque<BlockKey> queue_;
  absl::flat_hash_set<BlockKey> queued_;
  absl::flat_hash_map<BlockKey, Pull> pulls_;
};

}  // namespace tarn::kvstore
