#pragma once

// One sequence's tokens, the keys of its blocks, and the pages that hold its KV.
//
// What a prefill job and a decode sequence have in common. Pages come in any order: acquired from
// the pool (Put), or written by the executor (Span, then OnComputed). A page may be filled in part;
// what is not there is what Missing tells, so a lost block is computed again wherever it is in the
// sequence.
//
// Owns its pages and what is left of its reservation; both go back with the object. Loop-only;
// while a step runs over it, neither Append nor Put is called and the object stays where it is.
// `pool` outlives it.

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/base/block_key.h"
#include "common/memory/block_header.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/sequence/token_range.h"

namespace tarn::kvstore {

// What an executor needs to compute some tokens of a sequence.
struct SequenceSpan {
  std::span<const TokenId> tokens;
  int position = 0;                // of tokens[0]
  std::span<const int32_t> pages;  // of all blocks up to and including the last token's
};

// A block to be sealed when its payload is complete.
struct UnsealedBlock {
  BlockIdentity identity;
  std::span<std::byte> page;
};

class SequenceKv {
 public:
  // `reserve_tokens`: the length that the sequence may grow to; nothing moves in memory before
  // that.
  SequenceKv(NodePool* pool, const BlockKey& root, std::vector<TokenId> tokens, int reserve_tokens);
  SequenceKv(const SequenceKv&) = delete;
  SequenceKv& operator=(const SequenceKv&) = delete;

  std::span<const TokenId> tokens() const { return tokens_; }
  int length() const { return static_cast<int>(tokens_.size()); }
  int block_tokens() const { return block_tokens_; }
  // A sampled token: its KV is missing.
  void Append(TokenId token);

  // Blocks that the tokens touch; the last may be a tail of fewer tokens.
  int block_count() const;
  int token_count(int block) const;
  // Blocks whose tokens are all known: they have a place in the chain that does not change.
  int full_block_count() const { return length() / block_tokens_; }
  // Keys of all full blocks.
  std::span<const BlockKey> full_keys() const { return keys_; }
  // Of a full block, or of the tail as it is now.
  BlockKey key(int block) const;
  const BlockKey& parent(int block) const { return block == 0 ? root_ : keys_[block - 1]; }

  PageReservation& reservation() { return reservation_; }

  // What its blocks are published with, but for their position.
  void SetTraits(BlockTraits traits) { traits_ = std::move(traits); }
  // Of one block.
  BlockTraits traits(int block) const;

  // Whether all of the block's KV is here.
  bool Has(int block) const { return filled_[block] == token_count(block); }
  // The page of a block that is here, at least in part.
  const PageRef& page(int block) const { return pages_[block]; }
  // Takes a page with the KV of all the block's tokens.
  void Put(int block, PageRef page);

  // Ranges of tokens without KV, ascending, apart from each other.
  std::vector<TokenRange> Missing() const;

  // For the executor: the tokens of `range`, to be computed into pages that are allocated here
  // where needed. All in front of `range` is here. The reservation holds a page for each block that
  // is not.
  SequenceSpan Span(TokenRange range);
  // The blocks that `range` completes; with `tail` also the sequence's last block, full or not.
  std::vector<UnsealedBlock> Seals(TokenRange range, bool tail) const;
  // The step over `range` succeeded and its seals are written: publishes the full blocks.
  void OnComputed(TokenRange range);

 private:
  TokenRange BlocksOf(TokenRange range) const;
  bool Completes(int block, TokenRange range) const;
  void AllocatePage(int block);
  void ExtendKeys();

  NodePool* const pool_;
  const int block_tokens_;
  const BlockKey root_;
  BlockTraits traits_;
  std::vector<TokenId> tokens_;
  std::vector<BlockKey> keys_;  // of full blocks

  PageReservation reservation_;
  // By block, for the longest that the sequence may become.
  std::vector<PageRef> pages_;
  std::vector<int32_t> page_indices_;
  std::vector<int> filled_;  // tokens with KV, from the block's start
};

}  // namespace tarn::kvstore
