#pragma once

// Told of what happens in a NodePool, as it happens: for metrics that are more than counts.

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "common/base/ids.h"
#include "kvstore/core/types.h"

namespace tarn::kvstore {

// Called on the pool's loop; must be quick and must not call the pool.
class PoolObserver {
 public:
  virtual ~PoolObserver() = default;

  // A block was copied into a tier (`write`), or out of it to the tier above.
  virtual void OnCopied(Tier tier, bool write, absl::Duration time) = 0;
  // A block was used, so long after its last use or its coming.
  virtual void OnReused(Tier tier, absl::Duration age) = 0;
  // A block of so many tokens that a request of the tenant wanted came from `origin`; nothing: from
  // nowhere.
  virtual void OnLookup(const TenantId& tenant, std::optional<BlockOrigin> origin,
                        uint32_t tokens) = 0;
  // A block came into the arena, so long after it was wanted.
  virtual void OnFilled(BlockOrigin origin, absl::Duration time) = 0;
};

}  // namespace tarn::kvstore
