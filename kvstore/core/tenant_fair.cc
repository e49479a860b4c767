#include "kvstore/core/tenant_fair.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace tarn::kvstore {

TenantFairPolicy::TenantFairPolicy(Options options, Factory factory)
    : options_(std::move(options)), factory_(std::move(factory)) {
  tenants_.push_back({.share = options_.others, .policy = factory_()});
}

int32_t TenantFairPolicy::TenantOf(const TenantId& id) {
  if (auto it = by_id_.find(id); it != by_id_.end()) return it->second;
  auto share = options_.shares.find(id);
  const bool named = share != options_.shares.end();
  auto tenant = static_cast<int32_t>(tenants_.size());
  if (!named &&
      tenants_.size() - options_.shares.size() > static_cast<size_t>(options_.max_tenants)) {
    // The place of one that has nothing any more, with what was learned for it.
    auto empty = std::find_if(tenants_.begin() + 1, tenants_.end(), [](const Tenant& tenant) {
      return !tenant.named && tenant.cached == 0;
    });
    if (empty == tenants_.end()) return 0;
    tenant = static_cast<int32_t>(empty - tenants_.begin());
    by_id_.erase(empty->id);
    empty->id = id;
  } else {
    tenants_.push_back({.share = named ? share->second : options_.others,
                        .named = named,
                        .id = id,
                        .policy = factory_()});
  }
  by_id_[id] = tenant;
  return tenant;
}

void TenantFairPolicy::Insert(int32_t page, const BlockKey& key, int32_t parent,
                              const BlockTraits& traits, absl::Time now) {
  if (static_cast<size_t>(page) >= pages_.size()) pages_.resize(page + 1);
  const int32_t index = TenantOf(traits.tenant);
  Tenant& tenant = tenants_[index];
  int32_t number;
  if (tenant.unused.empty()) {
    number = static_cast<int32_t>(tenant.pages.size());
    tenant.pages.push_back(page);
  } else {
    number = tenant.unused.back();
    tenant.unused.pop_back();
    tenant.pages[number] = page;
  }
  pages_[page] = {.tenant = index, .number = number};
  ++tenant.cached;
  const bool knows_parent = parent >= 0 && pages_[parent].tenant == index;
  tenant.policy->Insert(number, key, knows_parent ? pages_[parent].number : -1, traits, now);
}

void TenantFairPolicy::Touch(int32_t page, absl::Time now) {
  tenants_[pages_[page].tenant].policy->Touch(pages_[page].number, now);
}

void TenantFairPolicy::Rest(int32_t page, absl::Time now) {
  tenants_[pages_[page].tenant].policy->Rest(pages_[page].number, now);
}

void TenantFairPolicy::Count(Page& page, Evictable evictable) {
  Tenant& tenant = tenants_[page.tenant];
  tenant.freely += (evictable == Evictable::kFreely) - (page.evictable == Evictable::kFreely);
  tenant.reluctantly +=
      (evictable == Evictable::kReluctantly) - (page.evictable == Evictable::kReluctantly);
  page.evictable = evictable;
}

void TenantFairPolicy::Allow(int32_t page, Evictable evictable) {
  Count(pages_[page], evictable);
  tenants_[pages_[page].tenant].policy->Allow(pages_[page].number, evictable);
}

void TenantFairPolicy::Erase(int32_t page) {
  Count(pages_[page], Evictable::kNever);
  Tenant& tenant = tenants_[pages_[page].tenant];
  tenant.policy->Erase(pages_[page].number);
  tenant.unused.push_back(pages_[page].number);
  --tenant.cached;
  pages_[page] = {};
}

int32_t TenantFairPolicy::Next(const std::vector<int>* gone) const {
  // Least first: guaranteed, reluctant, within its limit, little above its guarantee.
  using Rank = std::tuple<bool, bool, bool, double>;
  int32_t next = -1;
  Rank least;
  for (size_t i = 0; i < tenants_.size(); ++i) {
    const Tenant& tenant = tenants_[i];
    const int less = gone == nullptr ? 0 : (*gone)[i];
    // A forecast is of what goes freely.
    if (tenant.freely - less <= 0 && (gone != nullptr || tenant.reluctantly == 0)) continue;
    const int cached = tenant.cached - less;
    const Rank rank{cached <= tenant.share.guaranteed, tenant.freely - less <= 0,
                    cached <= tenant.share.limit.value_or(cached),
                    (tenant.share.guaranteed - cached) / tenant.share.weight};
    if (next < 0 || rank < least) {
      next = static_cast<int32_t>(i);
      least = rank;
    }
  }
  return next;
}

std::optional<int32_t> TenantFairPolicy::Victim(absl::Time now) {
  const int32_t next = Next(nullptr);
  if (next < 0) return std::nullopt;
  return tenants_[next].pages[*tenants_[next].policy->Victim(now)];
}

std::vector<int32_t> TenantFairPolicy::NextVictims(int count, absl::Time now) {
  std::vector<int32_t> victims;
  std::vector<int> gone(tenants_.size());
  std::vector<std::vector<int32_t>> of_tenant(tenants_.size());
  while (static_cast<int>(victims.size()) < count) {
    const int32_t next = Next(&gone);
    if (next < 0) break;
    if (gone[next] == 0) of_tenant[next] = tenants_[next].policy->NextVictims(count, now);
    victims.push_back(tenants_[next].pages[of_tenant[next][gone[next]++]]);
  }
  return victims;
}

std::optional<int32_t> TenantFairPolicy::AboveLimit(absl::Time now) {
  for (const Tenant& tenant : tenants_) {
    if (!tenant.above_limit() || tenant.freely == 0) continue;
    return tenant.pages[*tenant.policy->Victim(now)];
  }
  return std::nullopt;
}

std::optional<double> TenantFairPolicy::Worth(int32_t page, absl::Time now) const {
  const Page& known = pages_.at(page);
  return tenants_.at(known.tenant).policy->Worth(known.number, now);
}

int TenantFairPolicy::PagesOf(const TenantId& tenant) const {
  auto it = by_id_.find(tenant);
  return it == by_id_.end() ? 0 : tenants_[it->second].cached;
}

}  // namespace tarn::kvstore
