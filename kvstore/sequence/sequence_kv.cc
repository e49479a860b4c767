#include "kvstore/sequence/sequence_kv.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace tarn::kvstore {
namespace {

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace

SequenceKv::SequenceKv(NodePool* pool, const BlockKey& root, std::vector<TokenId> tokens,
                       int reserve_tokens)
    : pool_(pool),
      block_tokens_(pool->layout().block_tokens),
      root_(root),
      tokens_(std::move(tokens)) {
  // Spans of a running step point into these.
  tokens_.reserve(std::max<size_t>(tokens_.size(), reserve_tokens));
  const int blocks = CeilDiv(static_cast<int>(tokens_.capacity()), block_tokens_);
  pages_.resize(blocks);
  page_indices_.resize(blocks, -1);
  filled_.resize(blocks, 0);
  ExtendKeys();
}

void SequenceKv::Append(TokenId token) {
  CHECK_LT(tokens_.size(), tokens_.capacity()) << "the sequence is longer than was reserved";
  tokens_.push_back(token);
  ExtendKeys();
}

void SequenceKv::ExtendKeys() {
  while (static_cast<int>(keys_.size()) < full_block_count()) {
    const int block = static_cast<int>(keys_.size());
    keys_.push_back(
        ChildKey(parent(block), tokens().subspan(block * block_tokens_, block_tokens_)));
  }
}

int SequenceKv::block_count() const { return CeilDiv(length(), block_tokens_); }

int SequenceKv::token_count(int block) const {
  return std::min(block_tokens_, length() - block * block_tokens_);
}

BlockKey SequenceKv::key(int block) const {
  if (block < full_block_count()) return keys_[block];
  return ChildKey(parent(block), tokens().subspan(block * block_tokens_));
}

void SequenceKv::Put(int block, PageRef page) {
  page_indices_[block] = page.page();
  pages_[block] = std::move(page);
  filled_[block] = token_count(block);
}

BlockTraits SequenceKv::traits(int block) const {
  BlockTraits traits = traits_;
  traits.position = static_cast<uint32_t>(block);
  return traits;
}

std::vector<TokenRange> SequenceKv::Missing() const {
  std::vector<TokenRange> missing;
  for (int block = 0; block < block_count(); ++block) {
    const int start = block * block_tokens_;
    const TokenRange range{start + filled_[block], start + token_count(block)};
    if (range.empty()) continue;
    if (!missing.empty() && missing.back().end == range.begin) {
      missing.back().end = range.end;
    } else {
      missing.push_back(range);
    }
  }
  return missing;
}

void SequenceKv::AllocatePage(int block) {
  if (pages_[block]) return;
  pages_[block] = pool_->Allocate(reservation_);
  page_indices_[block] = pages_[block].page();
}

TokenRange SequenceKv::BlocksOf(TokenRange range) const {
  return {range.begin / block_tokens_, CeilDiv(range.end, block_tokens_)};
}

SequenceSpan SequenceKv::Span(TokenRange range) {
  const TokenRange blocks = BlocksOf(range);
  for (int block = blocks.begin; block < blocks.end; ++block) AllocatePage(block);
  SequenceSpan span;
  span.tokens = tokens().subspan(range.begin, range.size());
  span.position = range.begin;
  span.pages = std::span<const int32_t>(page_indices_).first(blocks.end);
  return span;
}

bool SequenceKv::Completes(int block, TokenRange range) const {
  return (block + 1) * block_tokens_ <= range.end;
}

std::vector<UnsealedBlock> SequenceKv::Seals(TokenRange range, bool tail) const {
  std::vector<UnsealedBlock> seals;
  const TokenRange blocks = BlocksOf(range);
  for (int block = blocks.begin; block < blocks.end; ++block) {
    const bool is_tail = tail && block == block_count() - 1 && range.end == length();
    if (!Completes(block, range) && !is_tail) continue;
    const auto count = static_cast<uint32_t>(token_count(block));
    seals.push_back({pool_->IdentityFor(pages_[block], key(block), count), pages_[block].bytes()});
  }
  return seals;
}

void SequenceKv::OnComputed(TokenRange range) {
  const TokenRange blocks = BlocksOf(range);
  for (int block = blocks.begin; block < blocks.end; ++block) {
    const int start = block * block_tokens_;
    filled_[block] = std::max(filled_[block], std::min(range.end - start, block_tokens_));
    if (!Completes(block, range)) continue;
    pool_->Publish(pages_[block], keys_[block], parent(block), traits(block));
  }
}

}  // namespace tarn::kvstore
