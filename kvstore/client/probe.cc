#include "kvstore/client/probe.h"

#include <cstring>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/memory/block_header.h"

namespace tarn::kvstore {
namespace {

constexpr uint32_t kTokens = 1;
constexpr std::byte kPattern{0xa5};

class Probe : public std::enable_shared_from_this<Probe> {
 public:
  Probe(const ProbePath& path, std::function<void(absl::Status)> done)
      : path_(path), layout_(path.pool->layout()), done_(std::move(done)) {}

  void Run(const v1::NodeInfo& self, absl::Time deadline) {
    absl::StatusOr<PageReservation> pages = path_.pool->Reserve(RequestId(), 2, deadline);
    if (!pages.ok()) return Finish(pages.status());
    sealed_ = path_.pool->Allocate(*pages);
    copy_ = path_.pool->Allocate(*pages);
    identity_ = path_.pool->IdentityFor(sealed_, ChildKey(BlockKey{}, {}), kTokens);
    std::memset(Payload(sealed_).data(), static_cast<int>(kPattern), layout_.payload_bytes());
    SealBlock(layout_, identity_, sealed_.bytes());
    BlockSource source{NodeId(self.node_id()), Incarnation(self.incarnation()), self.rpc_address(),
                       Tier::kHbm, sealed_.address()};
    path_.peers->Resolve(source, deadline,
                         [probe = shared_from_this(), deadline](absl::StatusOr<PeerId> peer) {
                           if (!peer.ok()) return probe->Finish(peer.status());
                           probe->Read(*peer, deadline);
                         });
  }

 private:
  std::span<std::byte> Payload(const PageRef& page) const {
    return page.bytes().subspan(layout_.payload_offset(), layout_.payload_bytes());
  }

  void Read(PeerId peer, absl::Time deadline) {
    BlockAddress from = sealed_.address();
    std::span<std::byte> to = copy_.bytes();
    ReadBatch batch;
    batch.deadline = deadline;
    batch.ops.push_back({RegionIndex(from.region), from.offset,
                         to.first(layout_.payload_offset() + layout_.payload_bytes())});
    batch.verify = [layout = layout_, identity = identity_, to](size_t) {
      return VerifyBlock(layout, identity, to);
    };
    path_.transport->Read(peer, std::move(batch),
                          [probe = shared_from_this()](std::vector<absl::Status> statuses) {
                            absl::Status status = std::move(statuses.at(0));
                            if (status.ok()) status = probe->Compare();
                            probe->Finish(std::move(status));
                          });
  }

  absl::Status Compare() const {
    for (std::byte byte : Payload(copy_)) {
      if (byte != kPattern) return absl::DataLossError("other bytes came than were written");
    }
    return absl::OkStatus();
  }

  void Finish(absl::Status status) {
    sealed_ = PageRef();
    copy_ = PageRef();
    done_(Annotate(status, "probe block"));
  }

  const ProbePath path_;
  const BlockLayout layout_;
  const std::function<void(absl::Status)> done_;
  BlockIdentity identity_;
  PageRef sealed_;
  PageRef copy_;
};

}  // namespace

void ProbePool(const ProbePath& path, const v1::NodeInfo& self, absl::Time deadline,
               std::function<void(absl::Status)> done) {
  std::make_shared<Probe>(path, std::move(done))->Run(self, deadline);
}

}  // namespace tarn::kvstore
