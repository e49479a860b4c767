#pragma once

// Who looked for how much, and where it was found: blocks, tokens and bytes, by model, tenant and
// origin, each beside its denominator.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "common/base/ids.h"
#include "common/metrics/registry.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// Thread-compatible; the registry outlives it.
class LookupMetrics {
 public:
  struct Options {
    std::string model;
    uint64_t block_bytes = 0;  // of a block's payload
    // The names of the origins, in the order of BlockOrigin.
    std::array<std::string, kBlockOrigins> origins;
    // So many by name, the rest together as "other".
    size_t max_tenants = 100;
  };
  LookupMetrics(metrics::Registry* registry, Options options);

  // A block of `tokens` was wanted, and came from `origin`; nothing: from nowhere.
  void Count(const TenantId& tenant, std::optional<BlockOrigin> origin, uint32_t tokens);

 private:
  using Counters = std::array<metrics::Counter*, 3>;  // blocks, tokens, bytes
  struct Tenant {
    std::string name;
    Counters lookups{};
    std::array<Counters, kBlockOrigins> hits{};  // made when there is one
  };
  using Families = std::array<metrics::Family<metrics::Counter>*, 3>;
  Tenant& Find(const TenantId& tenant);
  static Counters With(const Families& families, const std::vector<std::string>& labels);
  void Add(const Counters& counters, uint32_t tokens) const;

  const Options options_;
  Families lookups_{}, hits_{};
  std::map<TenantId, Tenant> tenants_;
  std::optional<Tenant> other_;
};

}  // namespace tarn::kvstore
