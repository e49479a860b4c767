#include "kvstore/client/probe.h"

#include <cstring>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/memory/block_header.h"

namespace tarn::kvstore {
namespace {

// A tail, so that it is neither cached nor announced.
constexpr uint32_t kTokens = 1;
constexpr uint8_t kPattern = 0xa5;

struct Probe {
  PageReservation pages;
  PageRef sealed;
  std::unique_ptr<NodePool::Ticket> ticket;
  std::function<void(absl::Status)> done;
};

absl::Status Judge(const BlockLayout& layout, const absl::StatusOr<AcquiredBlock>& block) {
  if (!block.ok()) return block.status();
  std::span<const std::byte> payload =
      block->page.bytes().subspan(layout.payload_offset(), layout.payload_bytes());
  for (std::byte byte : payload) {
    if (byte != std::byte{kPattern})
      return absl::DataLossError("other bytes came than were written");
  }
  return absl::OkStatus();
}

}  // namespace

void ProbePool(NodePool* pool, const v1::NodeInfo& self, absl::Time deadline,
               std::function<void(absl::Status)> done) {
  absl::StatusOr<PageReservation> pages = pool->Reserve(RequestId(), 2, deadline);
  if (!pages.ok()) return done(Annotate(pages.status(), "probe block"));
  auto probe = std::make_shared<Probe>();
  probe->pages = std::move(*pages);
  probe->sealed = pool->Allocate(probe->pages);
  probe->done = std::move(done);
  const BlockLayout& layout = pool->layout();
  BlockKey key = ChildKey(BlockKey{}, {});
  std::span<std::byte> bytes = probe->sealed.bytes();
  std::memset(bytes.data() + layout.payload_offset(), kPattern, layout.payload_bytes());
  SealBlock(layout, pool->IdentityFor(probe->sealed, key, kTokens), bytes);
  WantedBlock wanted;
  wanted.key = key;
  wanted.token_count = kTokens;
  wanted.sources.push_back({NodeId(self.node_id()), Incarnation(self.incarnation()),
                            self.rpc_address(), Tier::kHbm, probe->sealed.address()});
  std::vector<WantedBlock> blocks;
  blocks.push_back(std::move(wanted));
  probe->ticket =
      pool->Acquire(probe->pages, std::move(blocks), deadline,
                    [probe, layout](std::vector<absl::StatusOr<AcquiredBlock>> results) {
                      absl::Status status = Annotate(Judge(layout, results.at(0)), "probe block");
                      results.clear();
                      probe->ticket.reset();
                      probe->sealed = PageRef();
                      probe->pages = PageReservation();
                      probe->done(std::move(status));
                    });
}

}  // namespace tarn::kvstore
