#include "kvstore/client/node_pool.h"

#include <utility>

#include "kvstore/client/node_pool_impl.h"

namespace tarn::kvstore {

PageRef::PageRef(PageRef&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      page_(std::exchange(other.page_, -1)),
      deadline_(other.deadline_) {}

PageRef& PageRef::operator=(PageRef&& other) noexcept {
  if (this == &other) return *this;
  if (pool_ != nullptr) pool_->LetGo(page_, deadline_);
  pool_ = std::exchange(other.pool_, nullptr);
  page_ = std::exchange(other.page_, -1);
  deadline_ = other.deadline_;
  return *this;
}

PageRef::~PageRef() {
  if (pool_ != nullptr) pool_->LetGo(page_, deadline_);
}

std::span<std::byte> PageRef::bytes() const { return pool_->PageBytes(page_); }
BlockAddress PageRef::address() const { return pool_->PageAddress(page_); }

PageReservation::PageReservation(PageReservation&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, 0)) {}

PageReservation& PageReservation::operator=(PageReservation&& other) noexcept {
  if (this == &other) return *this;
  if (pool_ != nullptr) pool_->GiveBack(id_);
  pool_ = std::exchange(other.pool_, nullptr);
  id_ = std::exchange(other.id_, 0);
  return *this;
}

PageReservation::~PageReservation() {
  if (pool_ != nullptr) pool_->GiveBack(id_);
}

int PageReservation::remaining() const { return pool_ == nullptr ? 0 : pool_->Remaining(id_); }

absl::StatusOr<std::unique_ptr<NodePool>> NodePool::Create(
    const NodePoolOptions& options, EventLoop* loop, Transport* transport, PeerDirectory* peers,
    std::unique_ptr<PersistentBlockStore> ssd) {
  return NodePoolImpl::Create(options, loop, transport, peers, std::move(ssd));
}

}  // namespace tarn::kvstore
