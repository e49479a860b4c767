#include "kvstore/client/lookup_metrics.h"

#include <utility>
#include <vector>

namespace tarn::kvstore {
namespace {

constexpr const char* kUnits[] = {"blocks", "tokens", "bytes"};

}  // namespace

LookupMetrics::LookupMetrics(metrics::Registry* registry, Options options)
    : options_(std::move(options)) {
  const size_t tenants = options_.max_tenants + 1;
  for (size_t i = 0; i < std::size(kUnits); ++i) {
    const std::string unit = kUnits[i];
    lookups_[i] = &registry->AddCounterFamily("tarn_kv_tenant_lookup_" + unit + "_total",
                                              "KV that requests wanted, in " + unit + ".",
                                              {{"model", "tenant"}, tenants});
    hits_[i] = &registry->AddCounterFamily(
        "tarn_kv_tenant_hit_" + unit + "_total", "Of this, what was got, by where it came from.",
        {{"model", "tenant", "origin"}, tenants * kBlockOrigins});
  }
}

void LookupMetrics::Count(const TenantId& tenant, std::optional<BlockOrigin> origin,
                          uint32_t tokens) {
  Tenant& found = Find(tenant);
  Add(found.lookups, tokens);
  if (!origin.has_value()) return;
  const auto index = static_cast<size_t>(*origin);
  Counters& hits = found.hits[index];
  if (hits[0] == nullptr) {
    hits = With(hits_, {options_.model, found.name, options_.origins[index]});
  }
  Add(hits, tokens);
}

LookupMetrics::Tenant& LookupMetrics::Find(const TenantId& tenant) {
  auto it = tenants_.find(tenant);
  if (it != tenants_.end()) return it->second;
  const bool named = tenants_.size() < options_.max_tenants;
  if (!named && other_.has_value()) return *other_;
  Tenant made{.name = named ? tenant.value() : "other"};
  made.lookups = With(lookups_, {options_.model, made.name});
  return named ? tenants_[tenant] = std::move(made) : other_.emplace(std::move(made));
}

LookupMetrics::Counters LookupMetrics::With(const Families& families,
                                            const std::vector<std::string>& labels) {
  Counters counters;
  for (size_t i = 0; i < families.size(); ++i) counters[i] = &families[i]->With(labels);
  return counters;
}

void LookupMetrics::Add(const Counters& counters, uint32_t tokens) const {
  counters[0]->Add();
  counters[1]->Add(tokens);
  counters[2]->Add(options_.block_bytes);
}

}  // namespace tarn::kvstore
