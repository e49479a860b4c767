#include "kvstore/client/block_pull.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/block_arrival.h"

namespace tarn::kvstore {
namespace {

// A peer that does not answer for so long is tried no more for this block.
constexpr absl::Duration kAskTimeout = absl::Seconds(2);

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
  if (request_.sources.empty()) return Finish(outcome_.status);
  source_ = TakeQuickest();
  context_.rates->Start(IdOf(source_), context_.loop->Now());
  if (CacheTier** tier = std::get_if<CacheTier*>(&source_)) return ReadTier(*tier);
  Resolve();
}

PullSource BlockPull::TakeQuickest() {
  auto expected = [this](const PullSource& source) {
    return context_.rates->Expect(IdOf(source), 1, block_bytes(), context_.loop->Now());
  };
  auto quickest = request_.sources.begin();
  absl::Duration least = expected(*quickest);
  for (auto it = std::next(quickest); it != request_.sources.end(); ++it) {
    absl::Duration time = expected(*it);
    if (time < least) least = time, quickest = it;
  }
  PullSource taken = std::move(*quickest);
  request_.sources.erase(quickest);
  return taken;
}

SourceId BlockPull::IdOf(const PullSource& source) const {
  if (const BlockSource* peer = std::get_if<BlockSource>(&source)) return {peer->node, peer->tier};
  return {NodeId(), std::get<CacheTier*>(source)->tier()};
}

uint64_t BlockPull::block_bytes() const {
  return context_.layout.payload_offset() + context_.layout.payload_bytes();
}

void BlockPull::ReadTier(CacheTier* tier) {
  tier->Get(request_.key, request_.to, request_.deadline,
            [self = shared_from_this()](absl::Status status) { self->OnRead(std::move(status)); });
}

void BlockPull::Resolve() {
  asking_ = true;
  context_.peers->Resolve(*remote(), context_.loop->Now() + kAskTimeout,
                          [self = shared_from_this()](const absl::StatusOr<PeerId>& peer) {
                            if (!std::exchange(self->asking_, false)) return;
                            if (!peer.ok()) return self->OnRead(peer.status());
                            if (self->remote()->tier == Tier::kSsd) return self->Stage(*peer);
                            self->ReadFrom(*peer, self->remote()->address);
                          });
}

void BlockPull::Stage(PeerId peer) {
  asking_ = true;
  absl::Time deadline = std::min(request_.deadline, context_.loop->Now() + kAskTimeout);
  context_.peers->Stage(*remote(), request_.key, deadline,
                        [self = shared_from_this(), peer](const absl::StatusOr<BlockAddress>& at) {
                          if (!std::exchange(self->asking_, false)) return;
                          at.ok() ? self->ReadFrom(peer, *at) : self->OnRead(at.status());
                        });
}

void BlockPull::ReadFrom(PeerId peer, const BlockAddress& address) {
  ReadBatch batch;
  batch.ops.push_back(
      {RegionIndex(address.region), address.offset, request_.to.first(block_bytes())});
  BlockIdentity expected{request_.key, address.epoch, request_.token_count};
  batch.arrival = [layout = context_.layout, expected, page = request_.to](size_t) {
    return std::make_unique<BlockArrival>(layout, expected, page);
  };
  transfer_ = context_.transport->Read(
      peer, std::move(batch), [self = shared_from_this()](std::vector<absl::Status> statuses) {
        self->transfer_ = 0;
        self->OnRead(std::move(statuses.at(0)));
      });
}

void BlockPull::OnRead(absl::Status status) {
  if (abandoned_) return;
  EndSource(status);
  if (status.ok()) {
    outcome_.origin = Origin();
    outcome_.bytes = block_bytes();
    return Finish(absl::OkStatus());
  }
  if (absl::IsUnavailable(status) && remote() != nullptr) context_.peers->Forget(*remote());
  NoteFailure(status);
  TryNext();
}

void BlockPull::EndSource(const absl::Status& status) {
  SourceId id = IdOf(source_);
  absl::Time now = context_.loop->Now();
  // A block that has gone or is damaged says nothing about how quick its place is.
  bool no_fault = absl::IsAborted(status) || absl::IsNotFound(status) || absl::IsDataLoss(status);
  if (cancelled_ || no_fault) return context_.rates->Cancel(id, now);
  context_.rates->Finish(id, status.ok() ? block_bytes() : 0, now);
}

BlockOrigin BlockPull::Origin() const {
  Tier tier = IdOf(source_).tier;
  if (remote() != nullptr)
    return tier == Tier::kSsd ? BlockOrigin::kRemoteSsd : BlockOrigin::kRemote;
  return tier == Tier::kSsd ? BlockOrigin::kLocalSsd : BlockOrigin::kLocalDram;
}

void BlockPull::NoteFailure(const absl::Status& status) {
  if (cancelled_) return;
  std::string node = remote() == nullptr ? "this node" : "node " + remote()->node.value();
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
  // Nobody answers for the directory: a late answer finds `asking_` false.
  if (std::exchange(asking_, false)) {
    EndSource(absl::CancelledError());
    Finish(absl::CancelledError("the pull was cancelled"));
  }
}

void BlockPull::Abandon() {
  done_ = nullptr;
  Cancel();
  abandoned_ = true;
}

void BlockPull::Finish(absl::Status status) {
  outcome_.status = std::move(status);
  // Posted, so that `done` never runs inside Start or Cancel.
  context_.loop->Post([self = shared_from_this()] {
    if (self->done_) std::exchange(self->done_, nullptr)(self->outcome_);
  });
}

}  // namespace tarn::kvstore
