#include "kvstore/client/node_pool_impl.h"

#include <glog/logging.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::kvstore {

class NodePoolImpl::AcquireTicket : public Ticket {
 public:
  AcquireTicket(NodePoolImpl* pool, AcquireId id) : pool_(pool), id_(id) {}
  ~AcquireTicket() override { pool_->CancelAcquire(id_); }

 private:
  NodePoolImpl* const pool_;
  const AcquireId id_;
};

absl::StatusOr<std::unique_ptr<NodePool>> NodePoolImpl::Create(const NodePoolOptions& options,
                                                               EventLoop* loop,
                                                               Transport* transport,
                                                               PeerDirectory* peers) {
  RETURN_IF_ERROR(options.layout.Validate());
  if (options.hbm_pages <= 0 || options.dram_pages < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("hbm_pages must be positive (is ", options.hbm_pages,
                     "), dram_pages not negative (is ", options.dram_pages, ")"));
  }
  PullContext context{loop, transport, peers, options.layout, PeerId()};
  std::unique_ptr<NodePoolImpl> pool(new NodePoolImpl(options, context));
  RETURN_IF_ERROR(pool->AllocateTiers());
  return pool;
}

absl::Status NodePoolImpl::AllocateTiers() {
  Transport* transport = context_.transport;
  auto announce = [this](const InventoryChange& change) { Announce(change); };
  ASSIGN_OR_RETURN(arena_, TierPages::Create(options_.arena_tier, options_.layout,
                                             options_.hbm_pages, transport, announce));
  if (options_.dram_pages > 0) {
    ASSIGN_OR_RETURN(dram_, TierPages::Create(Tier::kDram, options_.layout, options_.dram_pages,
                                              transport, announce));
  }
  // Peers find a region at its index; the pool's are all there are, from 0.
  CHECK_EQ(arena_->memory()->index().value(), 0u);
  descriptors_.push_back(arena_->memory()->descriptor());
  if (dram_ != nullptr) descriptors_.push_back(dram_->memory()->descriptor());
  ASSIGN_OR_RETURN(context_.self, transport->Connect({transport->Address(), descriptors_}));
  return absl::OkStatus();
}

NodePoolImpl::~NodePoolImpl() {
  CHECK_EQ(promises_.holds(), 0) << "pages are still held when their pool goes";
  for (auto& [id, fill] : fills_) fill->pull->Abandon();
  for (auto& [id, copy] : copies_) copy.pull->Abandon();
}

std::vector<std::string> NodePoolImpl::RegionDescriptors() const { return descriptors_; }

void NodePoolImpl::Announce(const InventoryChange& change) {
  if (listener_) listener_(change);
}

std::vector<InventoryChange> NodePoolImpl::Inventory(InventoryListener listener) {
  listener_ = std::move(listener);
  std::vector<InventoryChange> changes = arena_->Inventory();
  if (dram_ != nullptr) {
    std::vector<InventoryChange> dram = dram_->Inventory();
    changes.insert(changes.end(), dram.begin(), dram.end());
  }
  return changes;
}

uint64_t NodePoolImpl::ReadInventory(uint64_t cursor, int max_pages,
                                     std::vector<InventoryChange>* blocks) const {
  // Pages of one tier after those of the other.
  for (const TierPages* tier : {arena_.get(), dram_.get()}) {
    if (tier == nullptr) continue;
    auto pages = static_cast<uint64_t>(tier->table().pages());
    if (cursor >= pages) {
      cursor -= pages;
      continue;
    }
    uint64_t end = std::min(pages, cursor + static_cast<uint64_t>(max_pages));
    std::vector<InventoryChange> part =
        tier->Inventory(static_cast<int32_t>(cursor), static_cast<int32_t>(end));
    std::move(part.begin(), part.end(), std::back_inserter(*blocks));
    bool last = end == pages && (tier == dram_.get() || dram_ == nullptr);
    uint64_t before = tier == arena_.get() ? 0 : static_cast<uint64_t>(arena_->table().pages());
    return last ? 0 : before + end;
  }
  return 0;
}

int NodePoolImpl::MatchLocal(std::span<const BlockKey> keys) const {
  int matched = 0;
  for (const BlockKey& key : keys) {
    bool here =
        arena_->table().Find(key) >= 0 || (dram_ != nullptr && dram_->table().Find(key) >= 0);
    if (!here) break;
    ++matched;
  }
  return matched;
}

// Promises and holds.

absl::StatusOr<PageReservation> NodePoolImpl::Reserve(RequestId owner, int pages,
                                                      absl::Time deadline) {
  if (pages < 0) return absl::InvalidArgumentError(absl::StrCat("pages is negative: ", pages));
  BlockTable& table = arena_->table();
  if (!PromisePages(pages)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "wanted ", pages, " pages; of ", table.pages(), ", ", table.available(),
        " are free or could be evicted, and ", table.reserved(), " of these are promised"));
  }
  return MakeReservation(promises_.Add(owner, deadline, pages));
}

bool NodePoolImpl::PromisePages(int pages) {
  BlockTable& table = arena_->table();
  for (auto& [id, copy] : copies_) {
    if (table.Reserve(pages)) return true;
    // The copy goes on without a hold, as in StartCopy.
    if (copy.arena_page >= 0) table.LetGo(std::exchange(copy.arena_page, -1), Now());
  }
  return table.Reserve(pages);
}

int NodePoolImpl::Remaining(uint64_t reservation) const {
  const Promise* promise = promises_.Find(reservation);
  return promise == nullptr ? 0 : promise->remaining;
}

void NodePoolImpl::GiveBack(uint64_t reservation) {
  arena_->table().Unreserve(Remaining(reservation));
  promises_.Erase(reservation);
}

bool NodePoolImpl::DrawPromise(uint64_t reservation) {
  Promise* promise = promises_.Find(reservation);
  if (promise == nullptr || promise->remaining == 0) return false;
  --promise->remaining;
  return true;
}

void NodePoolImpl::ReturnPromise(uint64_t reservation) {
  Promise* promise = promises_.Find(reservation);
  if (promise == nullptr) {
    arena_->table().Unreserve(1);
  } else {
    ++promise->remaining;
  }
}

PageRef NodePoolImpl::RefTo(int32_t page, absl::Time deadline) {
  promises_.AddHold(deadline);
  return MakeRef(page, deadline);
}

PageRef NodePoolImpl::HoldWithPromise(int32_t page, uint64_t reservation, absl::Time deadline) {
  bool free_of_charge = arena_->table().held(page);
  arena_->table().HoldReserved(page, Now());
  if (free_of_charge) ReturnPromise(reservation);
  return RefTo(page, deadline);
}

void NodePoolImpl::LetGo(int32_t page, absl::Time deadline) {
  promises_.RemoveHold(deadline);
  arena_->table().LetGo(page, Now());
}

PageRef NodePoolImpl::Allocate(PageReservation& reservation) {
  uint64_t id = IdOf(reservation);
  CHECK(DrawPromise(id)) << "a page was allocated on an empty reservation";
  return RefTo(arena_->TakeReserved(Now()), promises_.Find(id)->deadline);
}

std::optional<PageRef> NodePoolImpl::HoldCached(PageReservation& reservation, const BlockKey& key) {
  int32_t page = arena_->table().Find(key);
  const Promise* promise = promises_.Find(IdOf(reservation));
  if (page < 0 || promise == nullptr) return std::nullopt;
  absl::Time deadline = promise->deadline;
  if (arena_->table().held(page)) {
    arena_->table().HoldReserved(page, Now());
  } else {
    if (!DrawPromise(IdOf(reservation))) return std::nullopt;
    arena_->table().HoldReserved(page, Now());
  }
  ++counters_.hits_hbm;
  return RefTo(page, deadline);
}

// Blocks that were made here.

BlockIdentity NodePoolImpl::IdentityFor(const PageRef& page, const BlockKey& key,
                                        uint32_t token_count) {
  return {key, arena_->table().epoch(page.page()), token_count};
}

void NodePoolImpl::Publish(const PageRef& page, const BlockKey& key, const BlockKey& parent) {
  const BlockHeader& header = HeaderOf(page.bytes());
  CHECK(header.magic == BlockHeader::kMagic && header.key == key &&
        header.epoch == arena_->table().epoch(page.page()))
      << "page " << page.page() << " is not sealed as " << key;
  if (arena_->Publish(page.page(), key, parent, Now())) WantCopy(key, parent);
}

// Acquire.

std::unique_ptr<NodePool::Ticket> NodePoolImpl::Acquire(PageReservation& reservation,
                                                        std::vector<WantedBlock> wanted,
                                                        absl::Time deadline, AcquireDone done) {
  AcquireId id = ++last_id_;
  const Promise* promise = promises_.Find(IdOf(reservation));
  auto acquisition = std::make_unique<Acquisition>();
  acquisition->reservation = IdOf(reservation);
  acquisition->hold_deadline = promise == nullptr ? absl::InfiniteFuture() : promise->deadline;
  acquisition->done = std::move(done);
  acquisition->results.resize(wanted.size());
  // What the arena has is held first: pages taken for the rest could evict it.
  std::vector<size_t> missing;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!TakeFromArena(*acquisition, i, wanted[i])) missing.push_back(i);
  }
  for (size_t i : missing) StartBlock(id, *acquisition, i, wanted[i]);
  bool complete = acquisition->waiting.empty();
  if (!complete && deadline != absl::InfiniteFuture()) {
    acquisition->timer = context_.loop->PostAt(deadline, [this, id] { Expire(id); });
  }
  if (complete) {
    acquisition->timer = context_.loop->PostAt(Now(), [this, id] { FinishIfComplete(id); });
  }
  acquisitions_.emplace(id, std::move(acquisition));
  return std::make_unique<AcquireTicket>(this, id);
}

bool NodePoolImpl::IsTail(const WantedBlock& wanted) const {
  return wanted.token_count != static_cast<uint32_t>(options_.layout.block_tokens);
}

bool NodePoolImpl::TakeFromArena(Acquisition& acquisition, size_t index,
                                 const WantedBlock& wanted) {
  int32_t page = IsTail(wanted) ? -1 : arena_->table().Find(wanted.key);
  if (page < 0) return false;
  bool free_of_charge = arena_->table().held(page);
  if (!free_of_charge && !DrawPromise(acquisition.reservation)) return false;
  arena_->table().HoldReserved(page, Now());
  ++counters_.hits_hbm;
  acquisition.results[index] =
      AcquiredBlock{RefTo(page, acquisition.hold_deadline), BlockOrigin::kLocalHbm};
  return true;
}

void NodePoolImpl::StartBlock(AcquireId id, Acquisition& acquisition, size_t index,
                              WantedBlock& wanted) {
  auto joined = IsTail(wanted) ? fill_by_key_.end() : fill_by_key_.find(wanted.key);
  bool in_dram = dram_ != nullptr && !IsTail(wanted) && dram_->table().Find(wanted.key) >= 0;
  if (joined == fill_by_key_.end() && !in_dram && wanted.sources.empty() &&
      arena_->table().Find(wanted.key) < 0) {
    ++counters_.misses;
    acquisition.results[index] = absl::NotFoundError(
        absl::StrCat("block ", wanted.key.ToHex(), " is not here, and no source was given"));
    return;
  }
  if (!DrawPromise(acquisition.reservation)) {
    acquisition.results[index] = absl::ResourceExhaustedError(
        absl::StrCat("the reservation has no page left for block ", wanted.key.ToHex()));
    return;
  }
  FillId fill = joined == fill_by_key_.end() ? StartFill(wanted) : joined->second;
  fills_.at(fill)->waiters.push_back({id, index, acquisition.reservation});
  acquisition.waiting[index] = fill;
}

NodePoolImpl::FillId NodePoolImpl::StartFill(WantedBlock& wanted) {
  FillId id = ++last_id_;
  auto fill = std::make_unique<Fill>();
  fill->key = wanted.key;
  fill->parent = wanted.parent;
  fill->tail = IsTail(wanted);
  fill->page = arena_->TakeReserved(Now());
  PullRequest request{
      wanted.key,      wanted.token_count, {}, std::move(wanted.sources), arena_->Bytes(fill->page),
      arena_->memory()};
  int32_t dram_page = dram_ == nullptr || fill->tail ? -1 : dram_->table().Find(wanted.key);
  if (dram_page >= 0 && dram_->table().TryHold(dram_page, Now())) {
    fill->dram_page = dram_page;
    request.own_sources.push_back(dram_->Address(dram_page));
  }
  fill->remote = request.own_sources.empty();
  if (fill->remote) rate_.Start(Now());
  if (!fill->tail) fill_by_key_[wanted.key] = id;
  Fill& started = *fill;
  fills_.emplace(id, std::move(fill));
  started.pull = BlockPull::Start(context_, std::move(request),
                                  [this, id](const PullOutcome& o) { OnFilled(id, o); });
  return id;
}

void NodePoolImpl::OnFilled(FillId id, const PullOutcome& outcome) {
  auto node = fills_.extract(id);
  Fill& fill = *node.mapped();
  CloseToOthers(id, fill);
  if (fill.dram_page >= 0) dram_->table().LetGo(fill.dram_page, Now());
  CountOutcome(fill, outcome);
  if (outcome.status.ok()) {
    Succeed(fill, outcome.own ? BlockOrigin::kLocalDram : BlockOrigin::kRemote);
  } else {
    Fail(fill, outcome.status);
  }
  // Last: `done` may do anything to the pool, but it cannot touch this fill any more.
  for (const Waiter& waiter : fill.waiters) FinishIfComplete(waiter.acquire);
}

void NodePoolImpl::CountOutcome(const Fill& fill, const PullOutcome& outcome) {
  counters_.verify_failures += outcome.verify_failures;
  counters_.pull_failures += outcome.source_failures;
  bool remote_bytes = outcome.status.ok() && !outcome.own;
  if (remote_bytes) counters_.pulled_bytes += outcome.bytes;
  if (fill.remote) rate_.Finish(remote_bytes ? outcome.bytes : 0, Now());
  if (outcome.status.ok()) {
    (outcome.own ? counters_.hits_dram : counters_.hits_remote) +=
        std::max<size_t>(1, fill.waiters.size());
  } else if (!absl::IsCancelled(outcome.status)) {
    counters_.misses += fill.waiters.size();
  }
}

void NodePoolImpl::Succeed(Fill& fill, BlockOrigin origin) {
  BlockTable& table = arena_->table();
  RestampBlock(arena_->Bytes(fill.page), table.epoch(fill.page));
  if (fill.tail && !fill.waiters.empty()) {
    absl::Time deadline = acquisitions_.at(fill.waiters[0].acquire)->hold_deadline;
    return Deliver(fill.waiters[0], AcquiredBlock{RefTo(fill.page, deadline), origin});
  }
  int32_t page = fill.page;
  if (!fill.tail && !arena_->Publish(page, fill.key, fill.parent, Now())) {
    page = table.Find(fill.key);  // made here meanwhile: this copy is not needed
  }
  table.LetGo(fill.page, Now());
  CHECK(table.Reserve(1));
  if (fill.waiters.empty()) ReturnPromise(fill.orphaned_promise);
  for (const Waiter& waiter : fill.waiters) {
    absl::Time deadline = acquisitions_.at(waiter.acquire)->hold_deadline;
    Deliver(waiter, AcquiredBlock{HoldWithPromise(page, waiter.reservation, deadline), origin});
  }
  if (!fill.tail && origin == BlockOrigin::kRemote) WantCopy(fill.key, fill.parent);
}

void NodePoolImpl::Fail(Fill& fill, const absl::Status& status) {
  arena_->table().LetGo(fill.page, Now());
  CHECK(arena_->table().Reserve(1));
  if (fill.waiters.empty()) ReturnPromise(fill.orphaned_promise);
  for (const Waiter& waiter : fill.waiters) {
    ReturnPromise(waiter.reservation);
    bool expired = absl::IsCancelled(status) && acquisitions_.at(waiter.acquire)->expired;
    Deliver(waiter, expired ? absl::DeadlineExceededError(
                                  absl::StrCat("block ", fill.key.ToHex(), " did not come in time"))
                            : status);
  }
}

void NodePoolImpl::Deliver(const Waiter& waiter, absl::StatusOr<AcquiredBlock> block) {
  Acquisition& acquisition = *acquisitions_.at(waiter.acquire);
  acquisition.results[waiter.index] = std::move(block);
  acquisition.waiting.erase(waiter.index);
}

void NodePoolImpl::FinishIfComplete(AcquireId id) {
  auto it = acquisitions_.find(id);
  if (it == acquisitions_.end() || !it->second->waiting.empty()) return;
  std::unique_ptr<Acquisition> acquisition = std::move(it->second);
  acquisitions_.erase(it);
  context_.loop->CancelTimer(acquisition->timer);
  acquisition->done(std::move(acquisition->results));
}

void NodePoolImpl::CloseToOthers(FillId id, const Fill& fill) {
  auto it = fill_by_key_.find(fill.key);
  if (it != fill_by_key_.end() && it->second == id) fill_by_key_.erase(it);
}

void NodePoolImpl::LeaveFill(FillId id, AcquireId acquire, size_t index) {
  Fill& fill = *fills_.at(id);
  auto it = std::find_if(fill.waiters.begin(), fill.waiters.end(), [&](const Waiter& waiter) {
    return waiter.acquire == acquire && waiter.index == index;
  });
  uint64_t reservation = it->reservation;
  fill.waiters.erase(it);
  if (!fill.waiters.empty()) return ReturnPromise(reservation);  // another's pays for the page
  fill.orphaned_promise = reservation;
  CloseToOthers(id, fill);
  fill.pull->Cancel();
}

void NodePoolImpl::Expire(AcquireId id) {
  auto it = acquisitions_.find(id);
  if (it == acquisitions_.end()) return;
  Acquisition& acquisition = *it->second;
  acquisition.expired = true;
  std::map<size_t, FillId> waiting = acquisition.waiting;
  for (const auto& [index, fill_id] : waiting) {
    Fill& fill = *fills_.at(fill_id);
    if (fill.waiters.size() == 1) {
      // Told when the transfer has ended: then its promise is there again too.
      CloseToOthers(fill_id, fill);
      fill.pull->Cancel();
      continue;
    }
    LeaveFill(fill_id, id, index);
    acquisition.waiting.erase(index);
    acquisition.results[index] = absl::DeadlineExceededError(
        absl::StrCat("block ", fill.key.ToHex(), " did not come in time"));
  }
  FinishIfComplete(id);
}

void NodePoolImpl::CancelAcquire(AcquireId id) {
  auto it = acquisitions_.find(id);
  if (it == acquisitions_.end()) return;
  std::unique_ptr<Acquisition> acquisition = std::move(it->second);
  acquisitions_.erase(it);
  context_.loop->CancelTimer(acquisition->timer);
  for (const auto& [index, fill] : acquisition->waiting) LeaveFill(fill, id, index);
}

// Copies into the DRAM tier.

void NodePoolImpl::WantCopy(const BlockKey& key, const std::optional<BlockKey>& parent) {
  if (dram_ == nullptr || !options_.write_through) return;
  // The oldest wish goes: at that length its block has most likely left the arena anyway.
  if (waiting_copies_.size() >= static_cast<size_t>(options_.hbm_pages)) {
    waiting_copies_.pop_front();
  }
  waiting_copies_.push_back({key, parent});
  StartCopies();
}

void NodePoolImpl::StartCopies() {
  while (!waiting_copies_.empty() &&
         copies_.size() < static_cast<size_t>(std::max(1, options_.max_copies))) {
    WaitingCopy waiting = waiting_copies_.front();
    waiting_copies_.pop_front();
    StartCopy(waiting);
  }
}

void NodePoolImpl::StartCopy(const WaitingCopy& waiting) {
  int32_t source = arena_->table().Find(waiting.key);
  if (source < 0 || dram_->table().Find(waiting.key) >= 0) return;
  std::optional<int32_t> target = dram_->TryTake(Now());
  if (!target.has_value()) return;
  uint64_t id = ++last_id_;
  Copy& copy = copies_[id];
  copy = {waiting.key, waiting.parent, -1, *target, nullptr};
  // Where holding it would break a promise the copy runs all the same: if the page is reused
  // meanwhile, what arrived does not verify.
  if (arena_->table().TryHold(source, Now())) copy.arena_page = source;
  PullRequest request{waiting.key,
                      static_cast<uint32_t>(options_.layout.block_tokens),
                      {arena_->Address(source)},
                      {},
                      dram_->Bytes(*target),
                      dram_->memory()};
  copy.pull = BlockPull::Start(context_, std::move(request),
                               [this, id](const PullOutcome& outcome) { OnCopied(id, outcome); });
}

void NodePoolImpl::OnCopied(uint64_t id, const PullOutcome& outcome) {
  Copy copy = std::move(copies_.extract(id).mapped());
  if (copy.arena_page >= 0) arena_->table().LetGo(copy.arena_page, Now());
  if (outcome.status.ok()) {
    RestampBlock(dram_->Bytes(copy.dram_page), dram_->table().epoch(copy.dram_page));
    dram_->Publish(copy.dram_page, copy.key, copy.parent, Now());
  }
  dram_->table().LetGo(copy.dram_page, Now());
  StartCopies();
}

NodePoolStats NodePoolImpl::Stats() const {
  NodePoolStats stats = counters_;
  const BlockTable& hbm = arena_->table();
  stats.hbm_pages = hbm.pages();
  stats.hbm_free = hbm.free_pages();
  stats.hbm_cached = hbm.cached_pages();
  stats.hbm_held = hbm.held_pages();
  stats.hbm_reserved = hbm.reserved();
  stats.evictions_hbm = arena_->evictions();
  if (dram_ != nullptr) {
    stats.dram_pages = dram_->table().pages();
    stats.dram_free = dram_->table().free_pages();
    stats.dram_cached = dram_->table().cached_pages();
    stats.evictions_dram = dram_->evictions();
  }
  stats.leaked = promises_.Leaked(Now());
  stats.pulls_in_flight = static_cast<int>(fills_.size() + copies_.size());
  stats.pull_bytes_per_us = rate_.bytes_per_us();
  return stats;
}

}  // namespace tarn::kvstore
