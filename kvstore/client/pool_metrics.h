#pragma once

// A pool's figures as Prometheus metrics, all named tarn_kv_*.

#include <string>

#include "common/metrics/registry.h"
#include "kvstore/client/lookup_metrics.h"
#include "kvstore/client/node_pool.h"
#include "kvstore/client/peers.h"
#include "kvstore/client/pool_observer.h"

namespace tarn::kvstore {

struct PoolMetricsOptions {
  Tier arena_tier = Tier::kHbm;  // what labels call the arena
  std::string model;
  uint64_t block_bytes = 0;  // of a block's payload
};

// Thread-compatible; the registry outlives it.
class PoolMetrics : public PoolObserver {
 public:
  PoolMetrics(metrics::Registry* registry, const PoolMetricsOptions& options);
  void Update(const NodePoolStats& pool, const PeersStats& peers);

  void OnCopied(Tier tier, bool write, absl::Duration time) override;
  void OnReused(Tier tier, absl::Duration age) override;
  void OnLookup(const TenantId& tenant, std::optional<BlockOrigin> origin,
                uint32_t tokens) override;
  void OnFilled(BlockOrigin origin, absl::Duration time) override;

 private:
  const char* Arena() const { return has_hbm_ ? "hbm" : "dram"; }
  void UpdatePages(const NodePoolStats& stats);
  void UpdateEvictions(const char* tier, uint64_t all, uint64_t over_limit);
  void UpdateTier(const char* tier, const BlockStoreStats& stats);
  void UpdateTransfers(const NodePoolStats& stats);
  void UpdateSsd(const NodePoolStats& stats);
  // Brings a counter up to a total that somebody else counts.
  static void Raise(metrics::Counter& counter, uint64_t total);

  const bool has_hbm_;
  metrics::Family<metrics::Gauge>& pages_;
  metrics::Family<metrics::Gauge>& blocks_;
  metrics::Family<metrics::Counter>& hits_;
  metrics::Family<metrics::Counter>& evictions_;
  metrics::Counter& lookups_;
  metrics::Counter& misses_;
  metrics::Counter& pulled_bytes_;
  metrics::Counter& verify_failures_;
  metrics::Counter& pull_failures_;
  metrics::Gauge& leaked_;
  metrics::Gauge& in_flight_;
  metrics::Gauge& rate_;
  metrics::Counter& lost_;
  metrics::Family<metrics::Counter>& overtaken_;
  metrics::Family<metrics::Counter>& tier_bytes_;
  metrics::Family<metrics::Gauge>& tier_queued_;
  metrics::Family<metrics::Counter>& ssd_admissions_;
  metrics::Family<metrics::Counter>& ssd_errors_;
  metrics::Family<metrics::Counter>& ssd_skipped_;
  metrics::Counter& ssd_device_bytes_;
  metrics::Counter& ssd_damaged_;
  metrics::Gauge& ssd_recovered_;
  metrics::Family<metrics::Counter>& staged_;
  metrics::Family<metrics::Histogram>& copy_seconds_;
  metrics::Family<metrics::Histogram>& reuse_age_;
  metrics::Family<metrics::Histogram>& fill_seconds_;
  LookupMetrics tenants_;
  metrics::Gauge& peers_connected_;
  metrics::Counter& peer_failures_;
  metrics::Counter& peer_skips_;
};

}  // namespace tarn::kvstore
