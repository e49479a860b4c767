#pragma once

// The brain of one tier on one node: what each page holds, who may have it, and which page is next.
//
// A page is free, private (one owner writes it) or cached (found by key, shared, read-only). A
// cached page that nobody holds is evictable. Promises: Reserve sets pages aside among the free and
// evictable ones, and no call lets that number sink below the promises, so a promised page is
// always there.
//
// Children first: a block goes before its parent. One exception keeps the promises: a parent whose
// children are all held, while it is not, goes when nothing else can.
//
// Pure: no I/O, no clock, no lock; the caller does what the answers say. Thread-compatible.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "kvstore/core/eviction.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// A page that was handed out, private and held once.
struct TakenPage {
  int32_t page = -1;
  std::optional<BlockKey> evicted;  // what was cached in it: announce that it has gone
};

// Why a page is held: policies learn from uses, and upkeep must not look like one.
enum class HoldFor : uint8_t {
  kUse,     // a request reads it
  kUpkeep,  // it is copied or moved
};

// A block as others find it.
struct CachedBlock {
  BlockKey key;
  int32_t page = -1;
  uint64_t epoch = 0;
};

class BlockTable {
 public:
  enum class Start : uint8_t { kEmpty, kRestoring };

  // `policy` is for as many pages.
  BlockTable(int pages, std::unique_ptr<EvictionPolicy> policy, Start start = Start::kEmpty);

  // Promises `pages`; false if there are fewer left than that. All or nothing.
  bool Reserve(int pages);
  // Takes back promises that were not drawn.
  void Unreserve(int pages);

  // Hands out a page against one promise. A free one, else that of the policy's victim.
  TakenPage TakeReserved(absl::Time now);
  // Hands out a page that is promised to nobody, if there is one.
  std::optional<TakenPage> TryTake(absl::Time now);

  // The cached page of `key`, or -1.
  int32_t Find(const BlockKey& key) const;

  // Holds a cached page once more. Where nobody held it yet, this draws one promise.
  void HoldReserved(int32_t page, absl::Time now, HoldFor purpose = HoldFor::kUse);
  // The same without a promise; false where that would break somebody's.
  bool TryHold(int32_t page, absl::Time now, HoldFor purpose = HoldFor::kUse);
  // Ends one hold. A private page becomes free, a cached one evictable, when its last hold ends.
  void LetGo(int32_t page, absl::Time now);

  // Makes a private page findable. False, and nothing changes, if `key` is cached already.
  // `parent`: the key before it in the chain, if known; it may come later, or never.
  bool Publish(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
               const BlockTraits& traits, absl::Time now);

  // Frees a cached page though nobody needs one. False, and nothing changes, if somebody holds it
  // or it has a child that could go before it.
  bool Drop(int32_t page);

  // Forgets a cached block that nobody holds, because it turned out to be lost or damaged. Its
  // children stay.
  void Lose(int32_t page);

  // Instead of publishing, for a tier whose blocks outlive the process. All pages of a table made
  // with kRestoring are set aside until FinishRestore, which frees those that were not restored.
  // False, and nothing changes, if the page or the key is taken already.
  bool Restore(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
               const BlockTraits& traits, absl::Time now);
  void FinishRestore();

  // Of a cached page.
  const BlockKey& key(int32_t page) const { return pages_[page].key; }
  const std::optional<BlockKey>& parent(int32_t page) const { return pages_[page].parent; }
  const BlockTraits& traits(int32_t page) const { return pages_[page].traits; }
  // When it was last held for use, or came.
  absl::Time last_use(int32_t page) const { return pages_[page].last_use; }

  bool held(int32_t page) const { return pages_[page].holds > 0; }
  bool cached(int32_t page) const { return pages_[page].state == State::kCached; }
  // Counts the uses of the page: one more each time it is handed out.
  uint64_t epoch(int32_t page) const { return pages_[page].epoch; }

  int pages() const { return static_cast<int>(pages_.size()); }
  int free_pages() const { return static_cast<int>(free_.size()); }
  int cached_pages() const { return static_cast<int>(by_key_.size()); }
  int held_pages() const { return held_; }
  int reserved() const { return reserved_; }
  // Free or evictable.
  int available() const { return free_pages() + evictable_; }

  // As in EvictionPolicy.
  std::optional<int32_t> AboveLimit(absl::Time now) { return policy_->AboveLimit(now); }
  std::optional<double> Worth(int32_t page, absl::Time now) const {
    return policy_->Worth(page, now);
  }
  // Up to `count` pages that may be evicted now, likely victims first: see EvictionPolicy.
  std::vector<int32_t> NextVictims(int count, absl::Time now) {
    return policy_->NextVictims(count, now);
  }

  // The cached blocks of pages [first, end), by page.
  std::vector<CachedBlock> Blocks(int32_t first, int32_t end) const;
  std::vector<CachedBlock> Blocks() const { return Blocks(0, pages()); }

 private:
  enum class State : uint8_t { kSetAside, kFree, kPrivate, kCached };
  struct Page {
    State state = State::kSetAside;
    int32_t holds = 0;
    int32_t children = 0;         // cached blocks whose parent is this one
    int32_t unheld_children = 0;  // those of them that nobody holds
    uint64_t epoch = 0;
    BlockKey key;                    // if cached
    std::optional<BlockKey> parent;  // if cached
    BlockTraits traits;              // if cached
    absl::Time last_use;             // if cached
    bool used = false;  // somebody who holds it now, or did until others let go, used it
  };
  TakenPage Take(absl::Time now);
  void AddHold(int32_t page, absl::Time now, HoldFor purpose);
  void Cache(int32_t page, const BlockKey& key, const std::optional<BlockKey>& parent,
             const BlockTraits& traits, absl::Time now);
  // The cached page of the parent of `page`, or -1.
  int32_t ParentOf(int32_t page) const;
  void AdoptChildren(int32_t page);
  void LinkToParent(int32_t page);
  void UnlinkFromParent(int32_t page);
  void CountUnheldChild(int32_t page, int change);
  void Evict(int32_t page);
  // Tells the policy whether the page may go, after something about it changed.
  void Reconsider(int32_t page);

  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;  // a stack: the warmest page is next
  absl::flat_hash_map<BlockKey, int32_t> by_key_;
  // Pages by the key of their parent, whether that is cached or not.
  absl::flat_hash_map<BlockKey, std::vector<int32_t>> children_;
  int held_ = 0;
  int evictable_ = 0;  // cached and not held
  int reserved_ = 0;
};

}  // namespace tarn::kvstore
