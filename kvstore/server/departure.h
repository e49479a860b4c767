#pragma once

// How a store leaves without its blocks being lost: it tells the others once more of those that
// only it has, and waits while they take them. See HandOver, which decides.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "common/runtime/event_loop.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/core/hand_over.h"
#include "kvstore/server/neighbours.h"

namespace tarn::kvstore {

struct DepartureOptions {
  NodeId self;
  HandOverOptions hand_over;
  size_t max_blocks = 65536;  // on the list
  int part_pages = 4096;      // read at a time, so that the loop goes on serving
  absl::Duration poll = absl::Milliseconds(20);
};

// Blocks.
struct DepartureOutcome {
  bool alone = false;  // there was no other store to take anything
  HandOver::End end = HandOver::End::kAllOffered;
  size_t taken = 0;
  size_t left = 0;  // only here, to the end
};

// Loop-only. Its owner has told that this node is leaving.
class Departure {
 public:
  using Done = std::function<void(const DepartureOutcome&)>;

  // `done` runs once, later than this call; not if the departure is destroyed before.
  Departure(const DepartureOptions& options, EventLoop* loop, NodePool* pool, Neighbours neighbours,
            Done done);
  ~Departure() { loop_->CancelTimer(timer_); }

 private:
  bool Alone() const;
  bool Elsewhere(const BlockKey& key) const;
  // The next part of what is here, on the list.
  void ReadPart();
  void List(const InventoryChange& block);
  void BeginOffers();
  void Look();
  void Finish(const DepartureOutcome& outcome);
  void After(absl::Duration delay, std::function<void()> step);

  const DepartureOptions options_;
  EventLoop* const loop_;
  NodePool* const pool_;
  const Neighbours neighbours_;
  const Done done_;
  const absl::Time start_;
  Heirlooms heirlooms_;
  size_t only_here_ = 0;
  uint64_t cursor_ = 0;
  std::unique_ptr<HandOver> hand_over_;
  TimerId timer_ = 0;
};

}  // namespace tarn::kvstore
