#pragma once

// One block on its way into one page: tries its sources, the quickest first, verifies what comes.

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/memory/block_header.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/cache_tier.h"
#include "kvstore/client/peer_directory.h"
#include "kvstore/core/source_rates.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What all pulls of a node share. The pointers outlive every pull.
struct PullContext {
  EventLoop* loop = nullptr;
  Transport* transport = nullptr;
  PeerDirectory* peers = nullptr;
  SourceRates* rates = nullptr;
  BlockLayout layout;
};

// A tier of this node, or a place on another one.
using PullSource = std::variant<CacheTier*, BlockSource>;

struct PullRequest {
  BlockKey key;
  uint32_t token_count = 0;
  std::vector<PullSource> sources;               // equally quick ones are tried in this order
  std::span<std::byte> to;                       // a page; not touched by others until `done`
  std::shared_ptr<RegisteredMemory> memory;      // that the page lies in
  absl::Time deadline = absl::InfiniteFuture();  // of what waits for a device
};

struct PullOutcome {
  absl::Status status;  // NOT_FOUND: no source, or none had it any more
  BlockOrigin origin = BlockOrigin::kRemote;
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

  // Asks for an early end: `done` still runs, with CANCELLED or what came first. What a device is
  // asked for already is waited for.
  void Cancel();
  // Cancels, and `done` does not run. The memory stays until the transfer has ended. Afterwards the
  // context is not touched any more.
  void Abandon();

 private:
  BlockPull(const PullContext& context, PullRequest request, Done done)
      : context_(context), request_(std::move(request)), done_(std::move(done)) {}

  void TryNext();
  // Takes the one with the least expected time out of the list.
  PullSource TakeQuickest();
  void ReadTier(CacheTier* tier);
  void Resolve();
  void Stage(PeerId peer);
  void ReadFrom(PeerId peer, const BlockAddress& address);
  void OnRead(absl::Status status);
  void EndSource(const absl::Status& status);
  void NoteFailure(const absl::Status& status);
  const BlockSource* remote() const { return std::get_if<BlockSource>(&source_); }
  SourceId IdOf(const PullSource& source) const;
  BlockOrigin Origin() const;
  uint64_t block_bytes() const;
  void Finish(absl::Status status);

  const PullContext context_;
  PullRequest request_;
  Done done_;
  PullSource source_;  // under way
  TransferId transfer_ = 0;
  bool asking_ = false;  // the peer directory
  bool cancelled_ = false;
  bool abandoned_ = false;
  PullOutcome outcome_;
};

}  // namespace tarn::kvstore
