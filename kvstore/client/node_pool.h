#pragma once

// The part of the pool that lives in a node: its pages, what they hold, and how blocks get here.
//
// Prefill nodes, decode nodes and stores each have one. It owns the node's tiers: the executor's
// arena (HBM; on the CPU backend plain memory), a DRAM tier, in which blocks stay after their arena
// page is reused, and an SSD tier, in which they stay after that, and after the process. The first
// two are slabs of registered memory. It knows nothing of requests beyond an owner's id and
// deadline.
//
// A page is free, private (written by one owner), or cached (sealed, found by key, shared,
// read-only). Owners hold pages through PageRef; a page that nobody holds and that is not cached is
// free again. Pages are promised before they are needed (Reserve), so work that was admitted never
// waits for memory; cached pages that nobody holds are evicted to keep the promise, least recently
// used leaf first.
//
// Loop-only: all calls, and all callbacks, run on the node's EventLoop. Nothing blocks.
// PageRefs and PageReservations must be gone before the NodePool is.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "common/memory/block_header.h"
#include "common/memory/block_layout.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"
#include "kvstore/client/peer_directory.h"
#include "kvstore/client/pool_observer.h"
#include "kvstore/core/admission.h"
#include "kvstore/core/eviction.h"
#include "kvstore/core/source_rates.h"
#include "kvstore/core/types.h"
#include "kvstore/tier/block_store.h"

namespace tarn::kvstore {

class NodePool;

// A hold on one arena page: sole and writable while the page is private, shared and read-only once
// it is cached. Move-only; letting go is the destructor.
class PageRef {
 public:
  PageRef() = default;
  PageRef(PageRef&& other) noexcept;
  PageRef& operator=(PageRef&& other) noexcept;
  ~PageRef();

  explicit operator bool() const { return pool_ != nullptr; }
  int32_t page() const { return page_; }  // index in the arena: the executor's PageIndex
  std::span<std::byte> bytes() const;     // header and payload
  // Where a peer reads this page, valid while it is held (or cached).
  BlockAddress address() const;

 private:
  friend class NodePool;
  PageRef(NodePool* pool, int32_t page, absl::Time deadline)
      : pool_(pool), page_(page), deadline_(deadline) {}
  NodePool* pool_ = nullptr;
  int32_t page_ = -1;
  absl::Time deadline_ = absl::InfiniteFuture();
};

// A promise of pages to one owner, who draws on it. What is left goes back with the object.
class PageReservation {
 public:
  PageReservation() = default;
  PageReservation(PageReservation&& other) noexcept;
  PageReservation& operator=(PageReservation&& other) noexcept;
  ~PageReservation();
  int remaining() const;

 private:
  friend class NodePool;
  PageReservation(NodePool* pool, uint64_t id) : pool_(pool), id_(id) {}
  NodePool* pool_ = nullptr;
  uint64_t id_ = 0;  // the pool keeps the count: what an Acquire does not use comes back
};

// A block that somebody wants in the arena.
struct WantedBlock {
  BlockKey key;
  uint32_t token_count = 0;          // the layout's, but for a tail
  std::vector<BlockSource> sources;  // elsewhere; the node's own tiers are known to it
  std::optional<BlockKey> parent;    // the key before it in the chain, if known: orders eviction
  BlockTraits traits{};              // what it is cached with, if it comes from elsewhere
};

struct AcquiredBlock {
  PageRef page;  // verified; cached, unless it is a tail
  BlockOrigin origin = BlockOrigin::kLocalHbm;
};

// When a block is copied to the tier below.
enum class WritePolicy : uint8_t {
  kThrough,  // as soon as it is here
  kBack,     // when it is about to be evicted: fewer copies, and what was not copied is lost with
             // the process, or where eviction overtakes the copy
};

struct NodePoolOptions {
  BlockLayout layout;
  int hbm_pages = 0;
  int dram_pages = 0;  // 0: no DRAM tier
  WritePolicy write_policy = WritePolicy::kThrough;
  // How many copies into a tier run at a time. Each holds its source's page until somebody needs
  // it.
  int max_copies = 4;
  int max_ssd_writes = 16;
  // What is written to the SSD.
  WriteAdmission::Options ssd_writes;
  PoolObserver* observer = nullptr;  // may be null; outlives the pool
  // What is evicted first, by tier. Empty: the least recently used.
  std::function<std::unique_ptr<EvictionPolicy>(Tier tier, int pages)> eviction;
  // What the arena's blocks are announced as. A store has no HBM: its arena is kDram.
  Tier arena_tier = Tier::kHbm;
};

struct NodePoolStats {
  int hbm_pages = 0, hbm_free = 0, hbm_cached = 0, hbm_held = 0, hbm_reserved = 0;
  int dram_pages = 0, dram_free = 0, dram_cached = 0;
  int ssd_pages = 0, ssd_free = 0, ssd_cached = 0;
  double ssd_percent_recovered = 100;
  int leaked = 0;           // held pages and reservations whose owner's deadline has passed
  int pulls_in_flight = 0;  // blocks on their way into the arena or the DRAM tier
  // Blocks.
  uint64_t hits_hbm = 0, hits_dram = 0, hits_ssd = 0, hits_remote = 0, hits_remote_ssd = 0;
  uint64_t misses = 0;
  int fills = 0;              // blocks on their way into the arena
  uint64_t filled_bytes = 0;  // that came into it, from wherever
  uint64_t pulled_bytes = 0, verify_failures = 0, pull_failures = 0;
  uint64_t evictions_hbm = 0, evictions_dram = 0, evictions_ssd = 0;
  // Of these, of tenants who had more than they may.
  uint64_t over_limit_hbm = 0, over_limit_dram = 0, over_limit_ssd = 0;
  uint64_t lost = 0;  // blocks that a tier turned out to hold no more, or damaged
  uint64_t ssd_refused = 0, ssd_unwritten = 0;  // by admission; for want of time or room
  // With write-back: evicted from the arena or DRAM before they were copied below.
  uint64_t overtaken_hbm = 0, overtaken_dram = 0;
  uint64_t staged = 0, stage_failures = 0;        // for other nodes
  std::map<WriteVerdict, uint64_t> ssd_verdicts;  // by admission
  BlockStoreStats dram, ssd;
  double pull_bytes_per_us = 0;      // smoothed; 0: none yet
  double ssd_read_bytes_per_us = 0;  // the same
};

class NodePool {
 public:
  // What happens to the set of blocks that others may pull from here; feeds the inventory stream.
  using InventoryListener = std::function<void(const InventoryChange&)>;
  // One entry for each wanted block, in order.
  using AcquireDone = std::function<void(std::vector<absl::StatusOr<AcquiredBlock>>)>;

  // Allocates the slabs (slow: at start). `loop`, `transport` and `peers` outlive the pool. `ssd`:
  // the SSD tier, if there is one; its blocks come back in the background from the loop's first
  // turn on. To be called, like the destructor, on the loop or while it does not run.
  // RESOURCE_EXHAUSTED says how much memory was asked for.
  static absl::StatusOr<std::unique_ptr<NodePool>> Create(
      const NodePoolOptions& options, EventLoop* loop, Transport* transport, PeerDirectory* peers,
      std::unique_ptr<PersistentBlockStore> ssd = nullptr);
  virtual ~NodePool() = default;

  virtual const BlockLayout& layout() const = 0;
  // The arena's first byte; pages follow one another. For the executor's KvArena.
  virtual std::byte* arena() const = 0;
  // Descriptors of all regions, by index, for the handshake.
  virtual std::vector<std::string> RegionDescriptors() const = 0;

  // How many leading keys are in this node's own tiers.
  virtual int MatchLocal(std::span<const BlockKey> keys) const = 0;
  // The highest of this node's own tiers that has the block.
  struct LocalBlock {
    Tier tier = Tier::kHbm;
    BlockTraits traits;
    absl::Time last_use;
    std::optional<double> worth;  // as EvictionPolicy::Worth
  };
  virtual std::optional<LocalBlock> FindLocal(const BlockKey& key) const = 0;

  // Promises `pages` to `owner`, who counts as leaking if he still holds any after `deadline`.
  // RESOURCE_EXHAUSTED: says how many there are and how many are promised.
  virtual absl::StatusOr<PageReservation> Reserve(RequestId owner, int pages,
                                                  absl::Time deadline) = 0;

  // A private page with undefined content. The reservation must not be empty.
  virtual PageRef Allocate(PageReservation& reservation) = 0;

  // A cached block of the arena, held by the reservation's owner now. Draws a page on the
  // reservation if nobody held the block yet. Nothing if the arena does not have it, or the
  // reservation is empty.
  virtual std::optional<PageRef> HoldCached(PageReservation& reservation, const BlockKey& key) = 0;

  // Brings blocks into the arena: from its own pages, else from the node's other tiers and the
  // sources, the quickest by measurement first, all blocks at the same time. Draws on `reservation`
  // at once, at most one page a block; pages that are not used in the end go back to it (if it is
  // still there) before `done`, which runs later than this call, once. A block that no source
  // gives: NOT_FOUND, or the last source's error. DEADLINE_EXCEEDED: not here by `deadline`.
  // RESOURCE_EXHAUSTED: the reservation was empty. Every page is verified. Destroying the ticket
  // cancels: `done` does not run, pages come back when transfers have ended.
  class Ticket {
   public:
    virtual ~Ticket() = default;
  };
  virtual std::unique_ptr<Ticket> Acquire(PageReservation& reservation,
                                          std::vector<WantedBlock> wanted, absl::Time deadline,
                                          AcquireDone done) = 0;

  // What SealBlock must stamp on the payload in `page`. The header may be written on another
  // thread, while the page is held and private.
  virtual BlockIdentity IdentityFor(const PageRef& page, const BlockKey& key,
                                    uint32_t token_count) = 0;

  // Makes a sealed, full, private page findable and announces it. `parent`: the key before it in
  // the chain. If the key is cached already, the page stays private, and is free when let go.
  virtual void Publish(const PageRef& page, const BlockKey& key, const BlockKey& parent,
                       const BlockTraits& traits) = 0;

  // Where a peer can read this block from memory, now that it asked: read from the SSD first, if it
  // is only there. `done` runs once, possibly within this call. Errors: see Stager.
  struct StagedBlock {
    Tier tier = Tier::kDram;
    BlockAddress address;
  };
  using StageDone = std::function<void(absl::StatusOr<StagedBlock>)>;
  virtual void Stage(const BlockKey& key, absl::Time deadline, StageDone done) = 0;

  // When `blocks` blocks from `source` would be in the arena, from measured rates and what is under
  // way. Zero for the arena itself.
  virtual absl::Duration ExpectPull(const SourceId& source, int blocks) const = 0;

  // Changes of what peers may pull go to `listener` from now on; to none, if it is empty.
  virtual void ListenToInventory(InventoryListener listener) = 0;
  // Tells the listener of a block once more, as of one that has just come; of one that is not here,
  // nothing.
  virtual void AnnounceAgain(const BlockKey& key) = 0;
  // What peers may pull now, in parts, since there can be much: adds the blocks of the next
  // `max_pages` pages from `cursor` on to `blocks`. Gives the next cursor, 0 at the end; the first
  // is 0.
  virtual uint64_t ReadInventory(uint64_t cursor, int max_pages,
                                 std::vector<InventoryChange>* blocks) const = 0;

  virtual NodePoolStats Stats() const = 0;

 protected:
  friend class PageRef;
  friend class PageReservation;
  // For implementations: the only makers of refs and reservations.
  PageRef MakeRef(int32_t page, absl::Time deadline) { return PageRef(this, page, deadline); }
  PageReservation MakeReservation(uint64_t id) { return PageReservation(this, id); }
  static uint64_t IdOf(const PageReservation& reservation) { return reservation.id_; }

  virtual void LetGo(int32_t page, absl::Time deadline) = 0;
  virtual std::span<std::byte> PageBytes(int32_t page) const = 0;
  virtual BlockAddress PageAddress(int32_t page) const = 0;
  virtual int Remaining(uint64_t reservation) const = 0;
  virtual void GiveBack(uint64_t reservation) = 0;
};

}  // namespace tarn::kvstore
