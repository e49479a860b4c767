#include "kvstore/client/node_pool_impl.h"

#include <glog/logging.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kvstore/core/lru.h"

namespace tarn::kvstore {
namespace {

// Of a tier's pages: how many of the next victims have a copy below, with write-back. A prompt's
// worth of pages is often taken at once.
constexpr double kMargin = 1.0 / 16;

}  // namespace

class NodePoolImpl::AcquireTicket : public Ticket {
 public:
  AcquireTicket(NodePoolImpl* pool, AcquireId id) : pool_(pool), id_(id) {}
  ~AcquireTicket() override { pool_->CancelAcquire(id_); }

 private:
  NodePoolImpl* const pool_;
  const AcquireId id_;
};

absl::StatusOr<std::unique_ptr<NodePool>> NodePoolImpl::Create(
    const NodePoolOptions& options, EventLoop* loop, Transport* transport, PeerDirectory* peers,
    std::unique_ptr<PersistentBlockStore> ssd) {
  RETURN_IF_ERROR(options.layout.Validate());
  if (options.hbm_pages <= 0 || options.dram_pages < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("hbm_pages must be positive (is ", options.hbm_pages,
                     "), dram_pages not negative (is ", options.dram_pages, ")"));
  }
  PullContext context{loop, transport, peers, nullptr, options.layout};
  std::unique_ptr<NodePoolImpl> pool(new NodePoolImpl(options, context));
  pool->context_.rates = &pool->rates_;
  RETURN_IF_ERROR(pool->MakeTiers(std::move(ssd)));
  pool->MakeFeeders();
  if (options.write_policy == WritePolicy::kBack) pool->MakeWriteBacks();
  return pool;
}

absl::Status NodePoolImpl::MakeTiers(std::unique_ptr<PersistentBlockStore> ssd) {
  const BlockLayout& layout = options_.layout;
  EventLoop* loop = context_.loop;
  Transport* transport = context_.transport;
  ASSIGN_OR_RETURN(arena_,
                   CacheTier::InMemory(
                       options_.arena_tier, layout, options_.hbm_pages,
                       MakePolicy(options_.arena_tier, options_.hbm_pages), loop, transport,
                       [this](const InventoryChange& change) { OnChange(arena_.get(), change); }));
  tiers_.push_back(arena_.get());
  if (options_.dram_pages > 0) {
    ASSIGN_OR_RETURN(dram_, CacheTier::InMemory(Tier::kDram, layout, options_.dram_pages,
                                                MakePolicy(Tier::kDram, options_.dram_pages), loop,
                                                transport, [this](const InventoryChange& change) {
                                                  OnChange(dram_.get(), change);
                                                }));
    tiers_.push_back(dram_.get());
  }
  // Peers find a region at its index; the pool's are all there are, from 0.
  CHECK_EQ(arena_->memory()->index().value(), 0u);
  std::vector<std::shared_ptr<RegisteredMemory>> regions;
  for (CacheTier* tier : tiers_) {
    regions.push_back(tier->memory());
    descriptors_.push_back(tier->memory()->descriptor());
  }
  ASSIGN_OR_RETURN(PeerId self, transport->Connect({transport->Address(), descriptors_}));
  for (CacheTier* tier : tiers_) tier->SetLocal(self, regions);
  if (dram_ != nullptr) dram_->SetObserver(options_.observer);
  if (ssd == nullptr) return absl::OkStatus();
  for (const auto& region : regions) ssd->Retain(region);
  std::unique_ptr<EvictionPolicy> policy = MakePolicy(Tier::kSsd, ssd->slots());
  ssd_ =
      CacheTier::OnDevice(Tier::kSsd, layout, std::move(ssd), std::move(policy), loop,
                          [this](const InventoryChange& change) { OnChange(ssd_.get(), change); });
  tiers_.push_back(ssd_.get());
  ssd_->SetObserver(options_.observer);
  ssd_->Recover([this, start = Now()](const absl::Status& status) {
    LOG_IF(ERROR, !status.ok()) << "the SSD tier cannot be used: " << status;
    LOG_IF(INFO, status.ok()) << ssd_->table().cached_pages() << " blocks found on the SSD in "
                              << Now() - start;
  });
  return absl::OkStatus();
}

std::unique_ptr<EvictionPolicy> NodePoolImpl::MakePolicy(Tier tier, int pages) const {
  if (options_.eviction) return options_.eviction(tier, pages);
  return std::make_unique<LruPolicy>(pages);
}

void NodePoolImpl::MakeFeeders() {
  EventLoop* loop = context_.loop;
  const bool through = options_.write_policy == WritePolicy::kThrough;
  if (ssd_ != nullptr) {
    std::vector<CacheTier*> memory(tiers_.begin(), tiers_.end() - 1);
    // From DRAM where there is one: it has no promises to keep.
    std::reverse(memory.begin(), memory.end());
    TierFeederOptions feeder{.max_copies = options_.max_ssd_writes,
                             .max_waiting = static_cast<size_t>(memory.front()->table().pages())};
    to_ssd_ = std::make_unique<TierFeeder>(
        feeder, loop, ssd_.get(), memory,
        [this](const CacheTier& from, int32_t page) { return WorthWriting(from, page); }, nullptr);
    stager_ = std::make_unique<Stager>(StagerOptions(), loop, ssd_.get(), memory);
  }
  if (dram_ != nullptr) {
    TierFeederOptions feeder{.max_copies = std::max(1, options_.max_copies),
                             .max_waiting = static_cast<size_t>(options_.hbm_pages)};
    to_dram_ = std::make_unique<TierFeeder>(feeder, loop, dram_.get(),
                                            std::vector<CacheTier*>{arena_.get()}, nullptr,
                                            [this, through](const BlockRecord& record) {
                                              if (through && to_ssd_ != nullptr) {
                                                to_ssd_->Want(record);
                                              }
                                            });
  }
}

void NodePoolImpl::MakeWriteBacks() {
  for (size_t i = 0; i + 1 < tiers_.size(); ++i) {
    CacheTier* from = tiers_[i];
    std::vector<CacheTier*> below(tiers_.begin() + static_cast<int64_t>(i) + 1, tiers_.end());
    TierFeeder* feeder = below.front() == dram_.get() ? to_dram_.get() : to_ssd_.get();
    const int least = feeder == to_dram_.get() ? options_.max_copies : options_.max_ssd_writes;
    const int margin = std::max(least, static_cast<int>(from->table().pages() * kMargin));
    write_backs_[from] =
        std::make_unique<WriteBack>(margin, context_.loop, from, std::move(below), feeder);
  }
}

bool NodePoolImpl::WorthWriting(const CacheTier& from, int32_t page) {
  absl::Time now = Now();
  BlockTable& table = ssd_->table();
  WriteCandidate candidate;
  candidate.bytes = static_cast<int64_t>(options_.layout.page_bytes());
  candidate.free_slot = table.free_pages() > 0;
  candidate.worth = from.table().Worth(page, now);
  if (!candidate.free_slot) {
    std::vector<int32_t> victim = table.NextVictims(1, now);
    if (!victim.empty()) candidate.victim_worth = table.Worth(victim.front(), now);
  }
  const WriteVerdict verdict = ssd_writes_.Decide(candidate, now);
  ++counters_.ssd_verdicts[verdict];
  return verdict == WriteVerdict::kWrite;
}

NodePoolImpl::~NodePoolImpl() {
  CHECK_EQ(promises_.holds(), 0) << "pages are still held when their pool goes";
  for (auto& [id, fill] : fills_) fill->pull->Abandon();
}

std::vector<std::string> NodePoolImpl::RegionDescriptors() const { return descriptors_; }

void NodePoolImpl::OnChange(const CacheTier* tier, const InventoryChange& change) {
  Announce(change);
  auto it = write_backs_.find(tier);
  if (it == write_backs_.end()) return;
  change.added ? it->second->OnCame() : it->second->OnWent(change.key);
}

void NodePoolImpl::Announce(const InventoryChange& change) {
  if (listener_) listener_(change);
}

void NodePoolImpl::AnnounceAgain(const BlockKey& key) {
  const CacheTier* tier = FindTier(key);
  if (tier == nullptr) return;
  const int32_t page = tier->table().Find(key);
  for (const InventoryChange& change : tier->Inventory(page, page + 1)) Announce(change);
}

uint64_t NodePoolImpl::ReadInventory(uint64_t cursor, int max_pages,
                                     std::vector<InventoryChange>* blocks) const {
  // Pages of one tier after those of the other.
  uint64_t before = 0;
  for (const CacheTier* tier : tiers_) {
    auto pages = static_cast<uint64_t>(tier->table().pages());
    if (cursor < before + pages) {
      uint64_t first = cursor - before;
      uint64_t end = std::min(pages, first + static_cast<uint64_t>(max_pages));
      std::vector<InventoryChange> part =
          tier->Inventory(static_cast<int32_t>(first), static_cast<int32_t>(end));
      std::move(part.begin(), part.end(), std::back_inserter(*blocks));
      bool last = end == pages && tier == tiers_.back();
      return last ? 0 : before + end;
    }
    before += pages;
  }
  return 0;
}

int NodePoolImpl::MatchLocal(std::span<const BlockKey> keys) const {
  auto here = [this](const BlockKey& key) { return FindTier(key) != nullptr; };
  return static_cast<int>(std::find_if_not(keys.begin(), keys.end(), here) - keys.begin());
}

CacheTier* NodePoolImpl::FindTier(const BlockKey& key) const {
  auto has = [&key](const CacheTier* tier) { return tier->Has(key); };
  auto it = std::find_if(tiers_.begin(), tiers_.end(), has);
  return it == tiers_.end() ? nullptr : *it;
}

std::optional<NodePool::LocalBlock> NodePoolImpl::FindLocal(const BlockKey& key) const {
  const CacheTier* tier = FindTier(key);
  if (tier == nullptr) return std::nullopt;
  const BlockTable& table = tier->table();
  const int32_t page = table.Find(key);
  return LocalBlock{tier->tier(), table.traits(page), table.last_use(page),
                    table.Worth(page, Now())};
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
  for (TierFeeder* feeder : {to_dram_.get(), to_ssd_.get()}) {
    while (feeder != nullptr) {
      if (table.Reserve(pages)) return true;
      // The copy goes on without a hold, as in TierFeeder::Start.
      if (!feeder->LetGoOfOne(arena_.get())) break;
    }
  }
  while (!table.Reserve(pages)) {
    if (stager_ == nullptr || !stager_->LetGoOfOne()) return false;
  }
  return true;
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
  bool free_of_charge = arena_->table().held(page);
  if (!free_of_charge && !DrawPromise(IdOf(reservation))) return std::nullopt;
  CountArenaHit(page);
  arena_->table().HoldReserved(page, Now());
  return RefTo(page, deadline);
}

// Blocks that were made here.

BlockIdentity NodePoolImpl::IdentityFor(const PageRef& page, const BlockKey& key,
                                        uint32_t token_count) {
  return {key, arena_->table().epoch(page.page()), token_count};
}

void NodePoolImpl::Publish(const PageRef& page, const BlockKey& key, const BlockKey& parent,
                           const BlockTraits& traits) {
  const BlockHeader& header = HeaderOf(page.bytes());
  CHECK(header.magic == BlockHeader::kMagic && header.key == key &&
        header.epoch == arena_->table().epoch(page.page()))
      << "page " << page.page() << " is not sealed as " << key;
  if (arena_->Publish(page.page(), key, parent, traits, Now())) Feed(RecordOf(key, parent, traits));
}

BlockRecord NodePoolImpl::RecordOf(const BlockKey& key, const std::optional<BlockKey>& parent,
                                   const BlockTraits& traits) const {
  return {.key = key,
          .parent = parent,
          .token_count = static_cast<uint32_t>(options_.layout.block_tokens),
          .traits = traits,
          .last_use = Now()};
}

void NodePoolImpl::Feed(const BlockRecord& record) {
  if (options_.write_policy == WritePolicy::kBack) return;
  if (to_dram_ != nullptr) {
    to_dram_->Want(record);
  } else if (to_ssd_ != nullptr) {
    to_ssd_->Want(record);
  }
}

void NodePoolImpl::Stage(const BlockKey& key, absl::Time deadline, StageDone done) {
  if (stager_ != nullptr) return stager_->Stage(key, deadline, std::move(done));
  for (CacheTier* tier : tiers_) {
    int32_t page = tier->table().Find(key);
    if (page >= 0) return done(StagedBlock{tier->tier(), tier->Address(page)});
  }
  done(absl::NotFoundError(absl::StrCat("block ", key.ToHex(), " is not here")));
}

absl::Duration NodePoolImpl::ExpectPull(const SourceId& source, int blocks) const {
  bool in_place = source.node.value().empty() && source.tier == arena_->tier();
  if (in_place) return absl::ZeroDuration();
  return rates_.Expect(source, blocks, options_.layout.page_bytes(), Now());
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
  for (size_t i : missing) StartBlock(id, *acquisition, i, wanted[i], deadline);
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
  CountArenaHit(page);
  arena_->table().HoldReserved(page, Now());
  acquisition.results[index] =
      AcquiredBlock{RefTo(page, acquisition.hold_deadline), BlockOrigin::kLocalHbm};
  return true;
}

void NodePoolImpl::StartBlock(AcquireId id, Acquisition& acquisition, size_t index,
                              WantedBlock& wanted, absl::Time deadline) {
  auto joined = IsTail(wanted) ? fill_by_key_.end() : fill_by_key_.find(wanted.key);
  bool here = !IsTail(wanted) && FindTier(wanted.key) != nullptr;
  if (joined == fill_by_key_.end() && !here && wanted.sources.empty()) {
    CountLookups(std::nullopt, wanted.traits.tenant, wanted.token_count, 1);
    acquisition.results[index] = absl::NotFoundError(
        absl::StrCat("block ", wanted.key.ToHex(), " is not here, and no source was given"));
    return;
  }
  if (!DrawPromise(acquisition.reservation)) {
    acquisition.results[index] = absl::ResourceExhaustedError(
        absl::StrCat("the reservation has no page left for block ", wanted.key.ToHex()));
    return;
  }
  FillId fill = joined == fill_by_key_.end() ? StartFill(wanted, deadline) : joined->second;
  fills_.at(fill)->waiters.push_back({id, index, acquisition.reservation});
  acquisition.waiting[index] = fill;
}

NodePoolImpl::FillId NodePoolImpl::StartFill(WantedBlock& wanted, absl::Time deadline) {
  FillId id = ++last_id_;
  auto fill = std::make_unique<Fill>();
  fill->key = wanted.key;
  fill->parent = wanted.parent;
  fill->traits = wanted.traits;
  fill->tail = IsTail(wanted);
  fill->tokens = wanted.token_count;
  fill->start = Now();
  fill->page = arena_->TakeReserved(Now());
  PullRequest request{.key = wanted.key,
                      .token_count = wanted.token_count,
                      .to = arena_->Bytes(fill->page),
                      .memory = arena_->memory(),
                      .deadline = deadline};
  for (CacheTier* tier : tiers_) {
    if (tier == arena_.get() || fill->tail || !tier->Has(wanted.key)) continue;
    request.sources.push_back(tier);
    fill->traits = tier->table().traits(tier->table().Find(wanted.key));
  }
  fill->remote = request.sources.empty();
  for (BlockSource& source : wanted.sources) request.sources.push_back(std::move(source));
  if (fill->remote) pull_rate_.Start(Now());
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
  CountOutcome(fill, outcome);
  if (outcome.status.ok()) {
    Succeed(fill, outcome.origin);
  } else {
    Fail(fill, outcome.status);
  }
  // Last: `done` may do anything to the pool, but it cannot touch this fill any more.
  for (const Waiter& waiter : fill.waiters) FinishIfComplete(waiter.acquire);
}

void NodePoolImpl::CountLookups(std::optional<BlockOrigin> origin, const TenantId& tenant,
                                uint32_t tokens, size_t blocks) {
  uint64_t* const by_origin[kBlockOrigins] = {&counters_.hits_hbm, &counters_.hits_dram,
                                              &counters_.hits_ssd, &counters_.hits_remote,
                                              &counters_.hits_remote_ssd};
  *(origin.has_value() ? by_origin[static_cast<size_t>(*origin)] : &counters_.misses) += blocks;
  if (options_.observer == nullptr) return;
  for (size_t i = 0; i < blocks; ++i) options_.observer->OnLookup(tenant, origin, tokens);
}

void NodePoolImpl::CountArenaHit(int32_t page) {
  const BlockTable& table = arena_->table();
  CountLookups(BlockOrigin::kLocalHbm, table.traits(page).tenant,
               static_cast<uint32_t>(options_.layout.block_tokens), 1);
  if (options_.observer == nullptr) return;
  options_.observer->OnReused(arena_->tier(), Now() - table.last_use(page));
}

void NodePoolImpl::CountOutcome(const Fill& fill, const PullOutcome& outcome) {
  counters_.verify_failures += outcome.verify_failures;
  counters_.pull_failures += outcome.source_failures;
  bool remote = outcome.origin == BlockOrigin::kRemote || outcome.origin == BlockOrigin::kRemoteSsd;
  bool remote_bytes = outcome.status.ok() && remote;
  if (remote_bytes) counters_.pulled_bytes += outcome.bytes;
  if (fill.remote) pull_rate_.Finish(remote_bytes ? outcome.bytes : 0, Now());
  const TenantId& tenant = fill.traits.tenant;
  if (outcome.status.ok()) {
    counters_.filled_bytes += outcome.bytes;
    if (options_.observer != nullptr) {
      options_.observer->OnFilled(outcome.origin, Now() - fill.start);
    }
    CountLookups(outcome.origin, tenant, fill.tokens, std::max<size_t>(1, fill.waiters.size()));
  } else if (!absl::IsCancelled(outcome.status)) {
    CountLookups(std::nullopt, tenant, fill.tokens, fill.waiters.size());
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
  if (!fill.tail && !arena_->Publish(page, fill.key, fill.parent, fill.traits, Now())) {
    page = table.Find(fill.key);  // made here meanwhile: this copy is not needed
  }
  table.LetGo(fill.page, Now());
  CHECK(table.Reserve(1));
  if (fill.waiters.empty()) ReturnPromise(fill.orphaned_promise);
  for (const Waiter& waiter : fill.waiters) {
    absl::Time deadline = acquisitions_.at(waiter.acquire)->hold_deadline;
    Deliver(waiter, AcquiredBlock{HoldWithPromise(page, waiter.reservation, deadline), origin});
  }
  // Also of what came from the SSD: a block in use again moves up.
  bool in_dram = origin == BlockOrigin::kLocalDram;
  if (!fill.tail && !in_dram) Feed(RecordOf(fill.key, fill.parent, fill.traits));
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

NodePoolStats NodePoolImpl::Stats() const {
  NodePoolStats stats = counters_;
  const BlockTable& hbm = arena_->table();
  stats.hbm_pages = hbm.pages();
  stats.hbm_free = hbm.free_pages();
  stats.hbm_cached = hbm.cached_pages();
  stats.hbm_held = hbm.held_pages();
  stats.hbm_reserved = hbm.reserved();
  stats.evictions_hbm = arena_->evictions();
  stats.over_limit_hbm = arena_->over_limit();
  if (dram_ != nullptr) {
    stats.dram_pages = dram_->table().pages();
    stats.dram_free = dram_->table().free_pages();
    stats.dram_cached = dram_->table().cached_pages();
    stats.evictions_dram = dram_->evictions();
    stats.over_limit_dram = dram_->over_limit();
    stats.dram = dram_->store().Stats();
  }
  stats.leaked = promises_.Leaked(Now());
  stats.fills = static_cast<int>(fills_.size());
  stats.pulls_in_flight = stats.fills;
  if (to_dram_ != nullptr) stats.pulls_in_flight += to_dram_->Stats().copying;
  stats.pull_bytes_per_us = pull_rate_.bytes_per_us();
  for (const CacheTier* tier : tiers_) stats.lost += tier->drops();
  for (const auto& [tier, write_back] : write_backs_) {
    (tier == arena_.get() ? stats.overtaken_hbm : stats.overtaken_dram) += write_back->overtaken();
  }
  AddSsdStats(stats);
  return stats;
}

void NodePoolImpl::AddSsdStats(NodePoolStats& stats) const {
  if (ssd_ == nullptr) return;
  const BlockTable& table = ssd_->table();
  stats.ssd_pages = table.pages();
  stats.ssd_free = table.free_pages();
  stats.ssd_cached = table.cached_pages();
  stats.ssd_percent_recovered = ssd_->percent_recovered();
  stats.evictions_ssd = ssd_->evictions();
  stats.over_limit_ssd = ssd_->over_limit();
  TierFeederStats fed = to_ssd_->Stats();
  stats.pulls_in_flight += fed.copying;
  stats.ssd_refused = fed.refused;
  stats.ssd_unwritten = fed.forgotten + fed.failed;
  StagerStats staged = stager_->Stats();
  stats.pulls_in_flight += staged.reading;
  stats.staged = staged.staged;
  stats.stage_failures = staged.failed;
  stats.ssd = ssd_->store().Stats();
  stats.ssd_read_bytes_per_us = rates_.BytesPerUs({NodeId(), Tier::kSsd});
}

}  // namespace tarn::kvstore
