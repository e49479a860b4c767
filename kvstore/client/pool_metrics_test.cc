#include "kvstore/client/pool_metrics.h"

#include <gtest/gtest.h>

#include <string>

namespace tarn::kvstore {
namespace {

PoolMetricsOptions Options(Tier arena = Tier::kHbm) {
  return {.arena_tier = arena, .model = "m", .block_bytes = 1000};
}

bool Shows(const metrics::Registry& registry, const std::string& line) {
  return registry.Expose().find("\n" + line + "\n") != std::string::npos;
}

TEST(PoolMetricsTest, CountsLookupsInThreeUnits) {
  metrics::Registry registry;
  PoolMetrics metrics(&registry, Options());
  for (int i = 0; i < 3; ++i) metrics.OnLookup(TenantId("a"), BlockOrigin::kRemoteSsd, 32);
  metrics.OnLookup(TenantId("a"), BlockOrigin::kLocalHbm, 5);
  metrics.OnLookup(TenantId("a"), std::nullopt, 32);
  const std::string of = "{model=\"m\",tenant=\"a\"} ";
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_lookup_blocks_total" + of + "5"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_lookup_tokens_total" + of + "133"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_lookup_bytes_total" + of + "5000"));
  const std::string ssd = "{model=\"m\",tenant=\"a\",origin=\"remote_ssd\"} ";
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_hit_blocks_total" + ssd + "3"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_hit_tokens_total" + ssd + "96"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_hit_bytes_total" + ssd + "3000"));
  const std::string hbm = "{model=\"m\",tenant=\"a\",origin=\"hbm\"} ";
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_hit_tokens_total" + hbm + "5"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_model_info{model=\"m\"} 1"));
}

TEST(PoolMetricsTest, TooManyTenantsShareAName) {
  metrics::Registry registry;
  PoolMetrics metrics(&registry, Options());
  for (int i = 0; i < 150; ++i) {
    for (BlockOrigin origin : {BlockOrigin::kLocalHbm, BlockOrigin::kRemote}) {
      metrics.OnLookup(TenantId("t" + std::to_string(i)), origin, 32);
    }
  }
  metrics.OnLookup(TenantId("t7"), std::nullopt, 32);
  const std::string name = "tarn_kv_tenant_hit_blocks_total{model=\"m\",tenant=";
  EXPECT_TRUE(Shows(registry, name + "\"t99\",origin=\"remote\"} 1"));
  EXPECT_TRUE(Shows(registry, name + "\"other\",origin=\"remote\"} 50"));
  EXPECT_TRUE(Shows(registry, name + "\"other\",origin=\"hbm\"} 50")) << "the origin stays";
  EXPECT_FALSE(Shows(registry, name + "\"t100\",origin=\"hbm\"} 1"));
  EXPECT_TRUE(Shows(registry, "tarn_kv_tenant_lookup_blocks_total{model=\"m\",tenant=\"t7\"} 3"));
}

TEST(PoolMetricsTest, ShowsEachTierAndDirection) {
  metrics::Registry registry;
  PoolMetrics metrics(&registry, Options());
  NodePoolStats stats;
  stats.hbm_pages = stats.dram_pages = stats.ssd_pages = 8;
  stats.filled_bytes = 7;
  stats.fills = 2;
  stats.dram = {.read_bytes = 10, .written_bytes = 20, .reads_queued = 1, .writes_queued = 2};
  stats.ssd = {.read_bytes = 30, .written_bytes = 40, .reads_queued = 3, .writes_queued = 4};
  stats.evictions_dram = 9;
  stats.over_limit_dram = 4;
  stats.overtaken_hbm = 6;
  stats.ssd_verdicts = {{WriteVerdict::kWrite, 3}, {WriteVerdict::kTooFast, 1}};
  metrics.Update(stats, {});
  for (const char* line : {"tarn_kv_tier_bytes_total{tier=\"hbm\",direction=\"write\"} 7",
                           "tarn_kv_tier_bytes_total{tier=\"dram\",direction=\"read\"} 10",
                           "tarn_kv_tier_bytes_total{tier=\"dram\",direction=\"write\"} 20",
                           "tarn_kv_tier_bytes_total{tier=\"ssd\",direction=\"read\"} 30",
                           "tarn_kv_tier_queued{tier=\"hbm\",direction=\"write\"} 2",
                           "tarn_kv_tier_queued{tier=\"dram\",direction=\"write\"} 2",
                           "tarn_kv_tier_queued{tier=\"ssd\",direction=\"read\"} 3",
                           "tarn_kv_evictions_total{tier=\"dram\",reason=\"room\"} 5",
                           "tarn_kv_evictions_total{tier=\"dram\",reason=\"tenant_limit\"} 4",
                           "tarn_kv_overtaken_blocks_total{tier=\"hbm\"} 6",
                           "tarn_kv_ssd_admissions_total{decision=\"write\"} 3",
                           "tarn_kv_ssd_admissions_total{decision=\"too_fast\"} 1",
                           "tarn_kv_ssd_admissions_total{decision=\"not_worth\"} 0"}) {
    EXPECT_TRUE(Shows(registry, line)) << line;
  }
}

TEST(PoolMetricsTest, AStoresArenaIsDram) {
  metrics::Registry registry;
  PoolMetrics metrics(&registry, Options(Tier::kDram));
  NodePoolStats stats;
  stats.hbm_pages = 8;
  stats.filled_bytes = 7;
  metrics.Update(stats, {});
  metrics.OnLookup(TenantId("a"), BlockOrigin::kLocalHbm, 5);
  EXPECT_TRUE(Shows(registry, "tarn_kv_tier_bytes_total{tier=\"dram\",direction=\"write\"} 7"));
  EXPECT_TRUE(Shows(registry,
                    "tarn_kv_tenant_hit_blocks_total{model=\"m\",tenant=\"a\",origin=\"dram\"} 1"));
  EXPECT_EQ(registry.Expose().find("tier=\"hbm\""), std::string::npos);
}

}  // namespace
}  // namespace tarn::kvstore
