#pragma once

// Ours: evicts the page that is worth least, by what was learned of blocks of its kind and age.
//
// The kind of a block is what a prefix cache knows of it: how often it has come back, the turn of
// the request that used it last, how much that request had to compute, and whether it ends a chain.
// ReuseEstimator says what a page with a block of some kind and age is worth. Blocks of one kind
// and age lie in one cell; the victim is the oldest of the cell that is worth least, so a chain,
// whose blocks age together, goes from its tail on.

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "kvstore/core/eviction.h"
#include "kvstore/core/key_memory.h"
#include "kvstore/core/page_order.h"
#include "kvstore/core/reuse_estimator.h"

namespace tarn::kvstore {

// Where traits do not tell the turn it is derived: a request that extends the end of a chain is of
// the turn after that chain's, one that branches off in the middle begins anew. What is known of a
// block outlives it for a while (KeyMemory), as S3-FIFO's ghosts do.
//
// A call takes O(1) but for Allow, which is O(log pages) at worst, and for Victim, which now and
// then moves blocks on to the cells of their ages (O(1) a block and age) and ranks the cells anew.
class LearnedPolicy : public EvictionPolicy {
 public:
  // `pages` sizes what is watched.
  explicit LearnedPolicy(int pages);

  void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
              absl::Time now) override;
  void Touch(int32_t page, absl::Time now) override;
  void Rest(int32_t page, absl::Time now) override;
  void Allow(int32_t page, Evictable evictable) override;
  void Erase(int32_t page) override;
  std::optional<int32_t> Victim(absl::Time now) override;
  std::vector<int32_t> NextVictims(int count, absl::Time now) override;

  std::optional<double> Worth(int32_t page, absl::Time now) const override;

 private:
  struct Block {
    BlockKey key;
    absl::Time rested;
    uint64_t stamp = 0;  // of the last rest, or the insertion
    uint64_t life = 0;   // unlike that of any other block; 0: none here
    uint64_t parent_life = 0;
    int32_t parent = -1;
    int32_t cell = -1;  // where it lies, if it may go freely
    uint8_t uses = 0;   // requests that used it, as far as is remembered
    // Of the request that used it last:
    uint8_t turn = 0;
    uint32_t computed = 0;   // blocks that were new to it; 0: none, or not known
    uint32_t recalled = 0;   // blocks before this one, and it, that had gone and were made again
    bool in_use = false;     // since its last rest
    bool touched = false;    // by a request that has not made a new block after it yet
    bool continued = false;  // had a block after it
    bool branches = false;   // had a block after it that had one itself
    Evictable evictable = Evictable::kNever;
  };
  // The block before `page` in its chain, or -1.
  int32_t ParentOf(int32_t page) const;
  int ClassOf(const Block& block) const;
  int CellFor(const Block& block, absl::Time now) const;
  void Place(int32_t page);
  void Unplace(int32_t page);
  void PutInCell(int32_t page, int cell);
  // What a block that a request just made has from the one before it.
  void Follow(const Block& parent, int32_t parent_page, Block* block) const;
  // Tells the chain before `page`, which the same request used, what is known of that request.
  // Amortised over the touches of that chain.
  void TellChain(int32_t page);
  void SetContinued(int32_t page);
  void AgeCells(absl::Time now);
  void RankCells();

  ReuseEstimator estimator_;
  KeyMemory memory_;
  std::vector<Block> blocks_;  // by page
  PageLinks links_;
  std::vector<PageOrder> cells_;  // by class and age bucket
  PageOrder reluctantly_{&links_};
  std::vector<int32_t> cell_of_rank_, rank_of_cell_;  // rank 0 goes first
  std::vector<uint64_t> filled_;                      // a bit a rank
  uint64_t stamps_ = 0;
  absl::Time now_ = absl::InfinitePast();  // the latest time told
  absl::Time aged_ = absl::InfinitePast();
};

}  // namespace tarn::kvstore
