#pragma once

// The NodePool: its tiers, and fills of arena pages. See node_pool.h.
//
// A fill brings one block into one arena page. It is made once for all who want the block at a
// time. Each waiter has put in one promise; the first one's became the page, the others' lie in the
// table. So a fill with n waiters owns n promises when its page is let go at the end, whatever the
// outcome: what each waiter then gets (a hold, or its promise back) is the same few lines for
// success and failure.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvstore/client/block_pull.h"
#include "kvstore/client/cache_tier.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/client/promises.h"
#include "kvstore/client/stager.h"
#include "kvstore/client/tier_feeder.h"
#include "kvstore/client/write_back.h"
#include "kvstore/core/rate_meter.h"
#include "kvstore/core/source_rates.h"

namespace tarn::kvstore {

class NodePoolImpl : public NodePool {
 public:
  static absl::StatusOr<std::unique_ptr<NodePool>> Create(
      const NodePoolOptions& options, EventLoop* loop, Transport* transport, PeerDirectory* peers,
      std::unique_ptr<PersistentBlockStore> ssd);
  ~NodePoolImpl() override;

  const BlockLayout& layout() const override { return options_.layout; }
  std::byte* arena() const override { return arena_->memory()->bytes().data(); }
  std::vector<std::string> RegionDescriptors() const override;
  int MatchLocal(std::span<const BlockKey> keys) const override;
  std::optional<LocalBlock> FindLocal(const BlockKey& key) const override;
  absl::StatusOr<PageReservation> Reserve(RequestId owner, int pages, absl::Time deadline) override;
  PageRef Allocate(PageReservation& reservation) override;
  std::optional<PageRef> HoldCached(PageReservation& reservation, const BlockKey& key) override;
  std::unique_ptr<Ticket> Acquire(PageReservation& reservation, std::vector<WantedBlock> wanted,
                                  absl::Time deadline, AcquireDone done) override;
  BlockIdentity IdentityFor(const PageRef& page, const BlockKey& key,
                            uint32_t token_count) override;
  void Publish(const PageRef& page, const BlockKey& key, const BlockKey& parent,
               const BlockTraits& traits) override;
  void Stage(const BlockKey& key, absl::Time deadline, StageDone done) override;
  absl::Duration ExpectPull(const SourceId& source, int blocks) const override;
  void ListenToInventory(InventoryListener listener) override { listener_ = std::move(listener); }
  void AnnounceAgain(const BlockKey& key) override;
  uint64_t ReadInventory(uint64_t cursor, int max_pages,
                         std::vector<InventoryChange>* blocks) const override;
  NodePoolStats Stats() const override;

 private:
  class AcquireTicket;
  using AcquireId = uint64_t;
  using FillId = uint64_t;

  // One Acquire that is not done yet.
  struct Acquisition {
    uint64_t reservation = 0;
    absl::Time hold_deadline;  // of the pages it gets
    AcquireDone done;
    std::vector<absl::StatusOr<AcquiredBlock>> results;
    std::map<size_t, FillId> waiting;  // by index of the wanted block
    TimerId timer = 0;
    bool expired = false;
  };
  struct Waiter {
    AcquireId acquire = 0;
    size_t index = 0;
    uint64_t reservation = 0;
  };
  struct Fill {
    BlockKey key;
    std::optional<BlockKey> parent;
    BlockTraits traits;
    bool tail = false;
    uint32_t tokens = 0;
    absl::Time start;
    int32_t page = -1;
    bool remote = false;  // counted by the rate meter
    std::vector<Waiter> waiters;
    uint64_t orphaned_promise = 0;  // reservation of the last waiter, if all have gone
    std::shared_ptr<BlockPull> pull;
  };
  NodePoolImpl(const NodePoolOptions& options, PullContext context)
      : options_(options), context_(std::move(context)), ssd_writes_(options.ssd_writes) {}
  absl::Status MakeTiers(std::unique_ptr<PersistentBlockStore> ssd);
  std::unique_ptr<EvictionPolicy> MakePolicy(Tier tier, int pages) const;
  void MakeFeeders();
  void MakeWriteBacks();
  // Whether the block in this page of memory is to be written to the SSD.
  bool WorthWriting(const CacheTier& from, int32_t page);
  // A block has come to the tier, or gone from it.
  void OnChange(const CacheTier* tier, const InventoryChange& change);
  void Announce(const InventoryChange& change);
  absl::Time Now() const { return context_.loop->Now(); }

  void LetGo(int32_t page, absl::Time deadline) override;
  std::span<std::byte> PageBytes(int32_t page) const override { return arena_->Bytes(page); }
  BlockAddress PageAddress(int32_t page) const override { return arena_->Address(page); }
  int Remaining(uint64_t reservation) const override;
  void GiveBack(uint64_t reservation) override;

  // Promises pages; copies let go of theirs where it takes that.
  bool PromisePages(int pages);
  // Takes one page off the reservation; it stays promised in the table. False if it is empty.
  bool DrawPromise(uint64_t reservation);
  // Puts a promise that the table still counts back where it came from.
  void ReturnPromise(uint64_t reservation);
  PageRef RefTo(int32_t page, absl::Time deadline);
  // A hold on a cached page, paid with a promise that was drawn on `reservation`.
  PageRef HoldWithPromise(int32_t page, uint64_t reservation, absl::Time deadline);

  void StartBlock(AcquireId id, Acquisition& acquisition, size_t index, WantedBlock& wanted,
                  absl::Time deadline);
  // Gives the block to the acquisition if the arena has it.
  bool TakeFromArena(Acquisition& acquisition, size_t index, const WantedBlock& wanted);
  bool IsTail(const WantedBlock& wanted) const;
  // The highest tier that has the block, or null.
  CacheTier* FindTier(const BlockKey& key) const;
  FillId StartFill(WantedBlock& wanted, absl::Time deadline);
  void OnFilled(FillId id, const PullOutcome& outcome);
  // Of `blocks` requests for one block of so many tokens; nothing: misses.
  void CountLookups(std::optional<BlockOrigin> origin, const TenantId& tenant, uint32_t tokens,
                    size_t blocks);
  // A block of the arena is about to be used.
  void CountArenaHit(int32_t page);
  void CountOutcome(const Fill& fill, const PullOutcome& outcome);
  // Hands the verified page out to the waiters.
  void Succeed(Fill& fill, BlockOrigin origin);
  void Fail(Fill& fill, const absl::Status& status);
  void Deliver(const Waiter& waiter, absl::StatusOr<AcquiredBlock> block);
  void FinishIfComplete(AcquireId id);
  void CloseToOthers(FillId id, const Fill& fill);
  // Takes the waiter out; the last one's leaving cancels the transfer.
  void LeaveFill(FillId id, AcquireId acquire, size_t index);
  void Expire(AcquireId id);
  void CancelAcquire(AcquireId id);

  // A block has come into the arena: the tiers below may want it.
  void Feed(const BlockRecord& record);
  BlockRecord RecordOf(const BlockKey& key, const std::optional<BlockKey>& parent,
                       const BlockTraits& traits) const;

  void AddSsdStats(NodePoolStats& stats) const;

  const NodePoolOptions options_;
  PullContext context_;
  // Devices go first: they write from memory, and read into it.
  std::unique_ptr<CacheTier> arena_;
  std::unique_ptr<CacheTier> dram_;  // null: none
  std::unique_ptr<CacheTier> ssd_;   // null: none
  std::vector<CacheTier*> tiers_;    // all, from the top
  WriteAdmission ssd_writes_;
  std::unique_ptr<TierFeeder> to_dram_, to_ssd_;
  // By the tier that they copy from; none with write-through.
  std::map<const CacheTier*, std::unique_ptr<WriteBack>> write_backs_;
  std::unique_ptr<Stager> stager_;
  std::vector<std::string> descriptors_;
  InventoryListener listener_;

  Promises promises_;
  uint64_t last_id_ = 0;  // of acquisitions and fills
  absl::flat_hash_map<AcquireId, std::unique_ptr<Acquisition>> acquisitions_;
  absl::flat_hash_map<FillId, std::unique_ptr<Fill>> fills_;
  absl::flat_hash_map<BlockKey, FillId> fill_by_key_;  // those that others may join
  SourceRates rates_;
  RateMeter pull_rate_;     // all sources on other nodes together
  NodePoolStats counters_;  // only the counting fields
};

}  // namespace tarn::kvstore
