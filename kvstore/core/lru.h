#pragma once

// Least recently used goes first.

#include <set>
#include <vector>

#include "kvstore/core/eviction.h"

namespace tarn::kvstore {

// Order of calls decides what is recent, so equal times do not matter. O(log pages) a call.
class LruPolicy : public EvictionPolicy {
 public:
  explicit LruPolicy(int pages) : blocks_(pages) {}

  void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
              absl::Time now) override;
  void Touch(int32_t page, absl::Time now) override;
  void Allow(int32_t page, Evictable evictable) override;
  void Erase(int32_t page) override;
  std::optional<int32_t> Victim(absl::Time now) const override;

 private:
  struct Block {
    uint64_t last_use = 0;  // in uses counted by uses_
    Evictable evictable = Evictable::kNever;
  };
  struct Candidate {
    bool reluctant = false;
    uint64_t last_use = 0;
    int32_t page = 0;
    friend auto operator<=>(const Candidate&, const Candidate&) = default;
  };
  Candidate CandidateFor(int32_t page) const;
  void Change(int32_t page, Block block);

  std::vector<Block> blocks_;  // by page
  std::set<Candidate> candidates_;
  uint64_t uses_ = 0;
};

}  // namespace tarn::kvstore
