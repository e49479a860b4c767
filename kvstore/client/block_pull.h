#pragma once

// One block on its way into one page: tries its sources in turn, verifies what comes.

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/memory/block_header.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/peer_directory.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What all pulls of a node share. The pointers outlive every pull.
struct PullContext {
  EventLoop* loop = nullptr;
  Transport* transport = nullptr;
  PeerDirectory* peers = nullptr;
  BlockLayout layout;
  PeerId self;  // the transport, as its own peer
};

struct PullRequest {
  BlockKey key;
  uint32_t token_count = 0;
  // In this node's own memory: read through the transport as well, before the other sources.
  std::vector<BlockAddress> own_sources;
  std::vector<BlockSource> sources;
  std::span<std::byte> to;                   // a page; not touched by others until `done`
  std::shared_ptr<RegisteredMemory> memory;  // that the page lies in
};

struct PullOutcome {
  absl::Status status;  // NOT_FOUND: no source, or none had it any more
  bool own = false;     // from the node's own memory
  uint64_t bytes = 0;
  int verify_failures = 0;  // pages that came and were not the block
  int source_failures = 0;  // sources that gave nothing
};

// Loop-only. Keeps itself alive while a transfer is under way.
class BlockPull : public std::enable_shared_from_this<BlockPull> {
 public:
  using Done = std::function<void(const PullOutcome&)>;

  // `done` runs once, later than this call, when no transfer touches the page any more.
  static std::shared_ptr<BlockPull> Start(const PullContext& context, PullRequest request,
                                          Done done);

  // Asks for an early end: `done` still runs, with CANCELLED or what came first.
  void Cancel();
  // Cancels, and `done` does not run. The memory stays until the transfer has ended.
  void Abandon();

 private:
  BlockPull(const PullContext& context, PullRequest request, Done done)
      : context_(context), request_(std::move(request)), done_(std::move(done)) {}

  void TryNext();
  void Resolve(const BlockSource& source);
  void ReadFrom(PeerId peer, const BlockAddress& address);
  void OnRead(absl::Status status);
  void NoteFailure(absl::Status status);
  bool FromOwn() const { return next_ <= request_.own_sources.size(); }
  const BlockSource& source() const {
    return request_.sources[next_ - 1 - request_.own_sources.size()];
  }
  void Finish(absl::Status status);

  const PullContext context_;
  const PullRequest request_;
  Done done_;
  size_t next_ = 0;  // sources tried or under way, own ones first
  TransferId transfer_ = 0;
  bool resolving_ = false;
  bool cancelled_ = false;
  PullOutcome outcome_;
};

}  // namespace tarn::kvstore
