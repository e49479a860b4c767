#include "kvstore/client/cache_tier.h"

#include <glog/logging.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/block_header.h"

namespace tarn::kvstore {

absl::StatusOr<std::unique_ptr<CacheTier>> CacheTier::InMemory(
    Tier tier, const BlockLayout& layout, int pages, std::unique_ptr<EvictionPolicy> policy,
    EventLoop* loop, Transport* transport, Listener listener) {
  ASSIGN_OR_RETURN(std::unique_ptr<SlabStore> slab,
                   SlabStore::Create({.layout = layout, .slots = pages}, loop, transport));
  SlabStore* raw = slab.get();
  std::unique_ptr<CacheTier> made(new CacheTier(tier, layout, std::move(slab),
                                                BlockTable(pages, std::move(policy)), loop,
                                                std::move(listener)));
  made->slab_ = raw;
  return made;
}

std::unique_ptr<CacheTier> CacheTier::OnDevice(Tier tier, const BlockLayout& layout,
                                               std::unique_ptr<PersistentBlockStore> store,
                                               std::unique_ptr<EvictionPolicy> policy,
                                               EventLoop* loop, Listener listener) {
  PersistentBlockStore* raw = store.get();
  BlockTable table(raw->slots(), std::move(policy), BlockTable::Start::kRestoring);
  std::unique_ptr<CacheTier> made(
      new CacheTier(tier, layout, std::move(store), std::move(table), loop, std::move(listener)));
  made->device_ = raw;
  made->recovering_ = true;
  made->percent_ = 0;
  return made;
}

CacheTier::CacheTier(Tier tier, const BlockLayout& layout, std::unique_ptr<BlockStore> store,
                     BlockTable table, EventLoop* loop, Listener listener)
    : tier_(tier),
      layout_(layout),
      store_(std::move(store)),
      loop_(loop),
      listener_(std::move(listener)),
      table_(std::move(table)) {}

void CacheTier::Recover(Done done) {
  CHECK(device_ != nullptr) << "memory holds nothing from an earlier life";
  loop_->Post([this, alive = std::weak_ptr<bool>(alive_), done = std::move(done)] {
    if (alive.expired()) return;
    device_->Recover(
        [this, alive](const std::vector<PersistentBlockStore::Recovered>& blocks, double percent) {
          if (alive.expired()) return;
          for (const PersistentBlockStore::Recovered& block : blocks) Restore(block);
          percent_ = percent;
        },
        [this, alive, done](const absl::Status& status) {
          if (!alive.expired()) OnRecovered(done, status);
        });
  });
}

void CacheTier::OnRecovered(const Done& done, const absl::Status& status) {
  // Also where the device is of no use: writes will say so.
  table_.FinishRestore();
  recovering_ = false;
  percent_ = 100;
  done(status);
}

void CacheTier::Restore(const PersistentBlockStore::Recovered& block) {
  const BlockRecord& record = block.record;
  if (!table_.Restore(block.slot, record.key, record.parent, record.traits, record.last_use)) {
    return;  // named twice: the other one is as good
  }
  Announce(true, block.slot, record.key, record.traits);
}

// Copies.

bool CacheTier::Put(const BlockRecord& record, std::span<const std::byte> page, Done done) {
  if (recovering_ || Has(record.key) || arriving_.contains(record.key)) return false;
  std::optional<int32_t> slot = TryTake(loop_->Now());
  if (!slot.has_value()) return false;
  arriving_.insert(record.key);
  store_->Write(*slot, record, page,
                [this, alive = std::weak_ptr<bool>(alive_), slot = *slot, record,
                 start = loop_->Now(), done = std::move(done)](absl::Status status) {
                  if (alive.expired()) return;
                  if (status.ok()) Observe(true, start);
                  OnPut(slot, record, done, std::move(status));
                });
  return true;
}

void CacheTier::Observe(bool write, absl::Time start) {
  if (observer_ != nullptr) observer_->OnCopied(tier_, write, loop_->Now() - start);
}

void CacheTier::OnPut(int32_t page, const BlockRecord& record, const Done& done,
                      absl::Status status) {
  absl::Time now = loop_->Now();
  arriving_.erase(record.key);
  if (status.ok()) {
    if (!Publish(page, record.key, record.parent, record.traits, now)) {
      status = absl::AlreadyExistsError("the block came another way");
      store_->Erase(page);
    }
  }
  table_.LetGo(page, now);
  done(std::move(status));
}

void CacheTier::Get(const BlockKey& key, std::span<std::byte> page, absl::Time deadline,
                    Done done) {
  int32_t slot = table_.Find(key);
  absl::Time now = loop_->Now();
  absl::Duration age = slot < 0 ? absl::ZeroDuration() : now - table_.last_use(slot);
  if (slot < 0 || !table_.TryHold(slot, now)) {
    loop_->Post([done = std::move(done), key] {
      done(absl::NotFoundError(absl::StrCat("block ", key.ToHex(), " has left the tier")));
    });
    return;
  }
  if (observer_ != nullptr) observer_->OnReused(tier_, age);
  store_->Read(slot, key, page, deadline,
               [this, alive = std::weak_ptr<bool>(alive_), slot, now,
                done = std::move(done)](const absl::Status& status) {
                 if (alive.expired()) return;
                 if (status.ok()) Observe(false, now);
                 OnGot(slot, done, status);
               });
}

void CacheTier::OnGot(int32_t page, const Done& done, const absl::Status& status) {
  table_.LetGo(page, loop_->Now());
  // Another reader of the same page finds the same, and drops it when he is the last.
  bool gone = absl::IsDataLoss(status) || absl::IsNotFound(status) || absl::IsAborted(status);
  if (gone && table_.cached(page) && !table_.held(page)) Lose(page);
  done(status);
}

void CacheTier::Lose(int32_t page) {
  ++drops_;
  BlockKey key = table_.key(page);
  table_.Lose(page);
  Withdraw(page, key);
}

void CacheTier::Trim() {
  while (std::optional<int32_t> page = table_.AboveLimit(loop_->Now())) {
    BlockKey key = table_.key(*page);
    if (!table_.Drop(*page)) return;
    ++evictions_;
    ++over_limit_;
    Withdraw(*page, key);
  }
}

void CacheTier::Withdraw(int32_t page, const BlockKey& key) {
  if (slab_ != nullptr) InvalidateBlock(Bytes(page));
  store_->Erase(page);
  Announce(false, page, key, {});
}

// Pages.

int32_t CacheTier::Clear(const TakenPage& taken) {
  // At once, also if the store still has something to do on the slot.
  if (slab_ != nullptr) InvalidateBlock(Bytes(taken.page));
  store_->Erase(taken.page);
  if (taken.evicted.has_value()) {
    ++evictions_;
    Announce(false, taken.page, *taken.evicted, {});
  }
  return taken.page;
}

int32_t CacheTier::TakeReserved(absl::Time now) { return Clear(table_.TakeReserved(now)); }

std::optional<int32_t> CacheTier::TryTake(absl::Time now) {
  std::optional<TakenPage> taken = table_.TryTake(now);
  if (!taken.has_value()) return std::nullopt;
  return Clear(*taken);
}

bool CacheTier::Publish(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
                        const BlockTraits& traits, absl::Time now) {
  if (!table_.Publish(page, key, parent, traits, now)) return false;
  if (slab_ != nullptr) {
    slab_->Stamp(page, {key, table_.epoch(page), static_cast<uint32_t>(layout_.block_tokens)});
  }
  Announce(true, page, key, traits);
  Trim();
  return true;
}

void CacheTier::Announce(bool added, int32_t page, const BlockKey& key, const BlockTraits& traits) {
  InventoryChange change{.added = added, .key = key, .tier = tier_};
  if (added) {
    change.address = Address(page);
    change.traits = traits;
  }
  listener_(change);
}

BlockRecord CacheTier::RecordOf(int32_t page) const {
  return {.key = table_.key(page),
          .parent = table_.parent(page),
          .token_count = static_cast<uint32_t>(layout_.block_tokens),
          .traits = table_.traits(page),
          .last_use = loop_->Now()};
}

BlockAddress CacheTier::Address(int32_t page) const {
  // Nobody reads a device from afar: its owner is asked to stage the block, by key.
  uint32_t region = slab_ == nullptr ? 0 : slab_->memory()->index().value();
  return {region, static_cast<uint64_t>(page) * layout_.page_bytes(), table_.epoch(page)};
}

std::vector<InventoryChange> CacheTier::Inventory(int32_t first, int32_t end) const {
  std::vector<InventoryChange> changes;
  for (const CachedBlock& block : table_.Blocks(first, end)) {
    changes.push_back({.added = true,
                       .key = block.key,
                       .tier = tier_,
                       .address = Address(block.page),
                       .traits = table_.traits(block.page)});
  }
  return changes;
}

}  // namespace tarn::kvstore
