#pragma once

// One request on its way through the simulated cluster. Plain data; the simulation owns it, and
// routers and nodes note there what is theirs.

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "decode_node/scheduling/scheduler.h"
#include "kvstore/directory/block_index.h"
#include "prefill_node/batching/batcher.h"
#include "sim/cluster/node_cache.h"
#include "sim/workload/trace.h"

namespace tarn::sim {

class Node;

struct Request {
  RequestId id;
  const TraceRequest* spec = nullptr;
  absl::Time arrival;
  std::vector<BlockKey> keys;  // of the prompt's blocks, the tail's included

  // Routing: what was known when it was placed.
  std::vector<kvstore::NodeMatch> matches;
  Node* prefill = nullptr;
  Node* decode = nullptr;

  // At the prefill (or coupled) node.
  prefill::JobId job;
  PageHold prefill_pages;
  int fetches = 0;          // transfers under way
  uint32_t new_blocks = 0;  // that it computes
  std::vector<bool> here;   // by block: cached or fetched
  int published = 0;        // leading blocks

  // Hand-over.
  int handed_tokens = 0;
  int handovers = 0;  // transfers under way
  bool prefilled = false;

  // At the decode (or coupled) node.
  decode::SequenceId sequence;
  PageHold decode_pages;
  int decode_cached_blocks = 0;
  int tokens_left = 0;
  int context = 0;  // tokens with KV

  // What became of it.
  enum class End : uint8_t { kNone, kDone, kRejected, kRejectedLate, kTooLong };
  End end = End::kNone;
  absl::Duration router_wait;     // until it was placed
  absl::Duration predicted_ttft;  // by the router; zero: not predicted
  absl::Time first_token, last_token;
  absl::Duration worst_gap;  // between two of its tokens
  int matched_blocks = 0;    // leading blocks that the index knew when it arrived
  // Tokens of the prompt by where they came from; the rest was computed.
  int hbm_tokens = 0, dram_tokens = 0, ssd_tokens = 0, remote_tokens = 0;

  int input() const { return spec->input_tokens; }
  int output() const { return std::max(1, spec->output_tokens); }
  int reused_tokens() const { return hbm_tokens + dram_tokens + ssd_tokens + remote_tokens; }
};

}  // namespace tarn::sim
