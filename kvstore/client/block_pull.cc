#include "kvstore/client/block_pull.h"

#include <glog/logging.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/block_arrival.h"

namespace tarn::kvstore {
namespace {

// A peer that does not answer the handshake for so long is tried no more for this block.
constexpr absl::Duration kResolveTimeout = absl::Seconds(2);

}  // namespace

std::shared_ptr<BlockPull> BlockPull::Start(const PullContext& context, PullRequest request,
                                            Done done) {
  std::shared_ptr<BlockPull> pull(new BlockPull(context, std::move(request), std::move(done)));
  pull->outcome_.status =
      absl::NotFoundError(absl::StrCat("no source for block ", pull->request_.key.ToHex()));
  pull->TryNext();
  return pull;
}

void BlockPull::TryNext() {
  if (cancelled_) return Finish(absl::CancelledError("the pull was cancelled"));
  size_t own_count = request_.own_sources.size();
  if (next_ == own_count + request_.sources.size()) return Finish(outcome_.status);
  ++next_;
  if (FromOwn()) return ReadFrom(context_.self, request_.own_sources[next_ - 1]);
  Resolve(source());
}

void BlockPull::Resolve(const BlockSource& source) {
  resolving_ = true;
  context_.peers->Resolve(source, context_.loop->Now() + kResolveTimeout,
                          [self = shared_from_this()](absl::StatusOr<PeerId> peer) {
                            if (!std::exchange(self->resolving_, false)) return;
                            if (peer.ok()) {
                              self->ReadFrom(*peer, self->source().address);
                            } else {
                              self->NoteFailure(peer.status());
                              self->TryNext();
                            }
                          });
}

void BlockPull::ReadFrom(PeerId peer, const BlockAddress& address) {
  const BlockLayout& layout = context_.layout;
  std::span<std::byte> page = request_.to.first(layout.payload_offset() + layout.payload_bytes());
  ReadBatch batch;
  batch.ops.push_back({RegionIndex(address.region), address.offset, page});
  BlockIdentity expected{request_.key, address.epoch, request_.token_count};
  batch.arrival = [layout, expected, page = request_.to](size_t) {
    return std::make_unique<BlockArrival>(layout, expected, page);
  };
  transfer_ = context_.transport->Read(
      peer, std::move(batch), [self = shared_from_this()](std::vector<absl::Status> statuses) {
        self->transfer_ = 0;
        self->OnRead(std::move(statuses.at(0)));
      });
}

void BlockPull::OnRead(absl::Status status) {
  if (status.ok()) {
    outcome_.own = FromOwn();
    outcome_.bytes = context_.layout.payload_offset() + context_.layout.payload_bytes();
    return Finish(absl::OkStatus());
  }
  if (absl::IsUnavailable(status) && !FromOwn()) context_.peers->Forget(source());
  NoteFailure(std::move(status));
  TryNext();
}

void BlockPull::NoteFailure(absl::Status status) {
  if (cancelled_) return;
  std::string node = FromOwn() ? "own memory" : "node " + source().node.value();
  std::string where = absl::StrCat("block ", request_.key.ToHex(), " from ", node);
  if (absl::IsAborted(status)) {
    // The page holds another block by now: the source does not have it, as if it had said so.
    ++outcome_.verify_failures;
    outcome_.status = absl::NotFoundError(absl::StrCat(where, ": ", Message(status)));
    return;
  }
  absl::IsDataLoss(status) ? ++outcome_.verify_failures : ++outcome_.source_failures;
  LOG_EVERY_N(WARNING, 100) << where << ": " << status;
  outcome_.status = Annotate(status, where);
}

void BlockPull::Cancel() {
  if (std::exchange(cancelled_, true)) return;
  if (transfer_ != 0) context_.transport->Cancel(transfer_);
  // Nobody answers for the directory: a late answer finds `resolving_` false.
  if (std::exchange(resolving_, false)) Finish(absl::CancelledError("the pull was cancelled"));
}

void BlockPull::Abandon() {
  done_ = nullptr;
  Cancel();
}

void BlockPull::Finish(absl::Status status) {
  outcome_.status = std::move(status);
  // Posted, so that `done` never runs inside Start or Cancel.
  context_.loop->Post([self = shared_from_this()] {
    if (self->done_) std::exchange(self->done_, nullptr)(self->outcome_);
  });
}

}  // namespace tarn::kvstore
