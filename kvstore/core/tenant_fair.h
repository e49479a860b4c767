#pragma once

// Shares one tier between tenants: what each is guaranteed stays, whatever the others do.
//
// A decorator: each tenant has a policy of its own, which decides which of that tenant's blocks
// goes first; this class decides whose turn it is. A victim is taken from the tenant that is most
// above its guarantee, by weight, and from one at or below its guarantee only if nobody above has
// anything that may go. So a flood by one tenant evicts its own blocks.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvstore/core/eviction.h"

namespace tarn::kvstore {

// In pages of the tier.
struct TenantShare {
  int guaranteed = 0;
  std::optional<int> limit;
  double weight = 1;  // of what it has above its guarantee, against others; > 0
};

class TenantFairPolicy : public EvictionPolicy {
 public:
  struct Options {
    absl::flat_hash_map<TenantId, TenantShare> shares;
    TenantShare others;     // of each tenant that is not named above
    int max_tenants = 256;  // not named: what is beyond shares one place, as if it were one tenant
  };
  // Makes the policy of one tenant; its pages are numbered from 0 without gaps.
  using Factory = std::function<std::unique_ptr<EvictionPolicy>()>;
  TenantFairPolicy(Options options, Factory factory);

  void Insert(int32_t page, const BlockKey& key, int32_t parent, const BlockTraits& traits,
              absl::Time now) override;
  void Touch(int32_t page, absl::Time now) override;
  void Rest(int32_t page, absl::Time now) override;
  void Allow(int32_t page, Evictable evictable) override;
  void Erase(int32_t page) override;
  // O(tenants), besides what the tenant's policy takes. A guarantee counts more than reluctance:
  // what a tenant above its guarantee gives reluctantly goes before anything of one below.
  std::optional<int32_t> Victim(absl::Time now) override;
  std::vector<int32_t> NextVictims(int count, absl::Time now) override;

  std::optional<int32_t> AboveLimit(absl::Time now) override;
  std::optional<double> Worth(int32_t page, absl::Time now) const override;
  // Cached blocks of a tenant.
  int PagesOf(const TenantId& tenant) const;

 private:
  struct Tenant {
    TenantShare share;
    bool named = true;
    TenantId id;
    std::unique_ptr<EvictionPolicy> policy;
    std::vector<int32_t> pages;       // by the number that the policy knows it by
    std::vector<int32_t> unused;      // of these numbers
    int cached = 0;                   // blocks
    int freely = 0, reluctantly = 0;  // those of them that may go
    bool above_limit() const { return share.limit.has_value() && cached > *share.limit; }
  };
  struct Page {
    int32_t tenant = -1;  // -1: no block here
    int32_t number = -1;  // of the page, for the tenant's policy
    Evictable evictable = Evictable::kNever;
  };
  int32_t TenantOf(const TenantId& id);
  void Count(Page& page, Evictable evictable);
  // Whose turn it is, -1 if nobody's. As if `gone` blocks of each tenant had gone, where given.
  int32_t Next(const std::vector<int>* gone) const;

  const Options options_;
  const Factory factory_;
  std::vector<Tenant> tenants_;  // the first: those beyond max_tenants
  absl::flat_hash_map<TenantId, int32_t> by_id_;
  std::vector<Page> pages_;
};

}  // namespace tarn::kvstore
