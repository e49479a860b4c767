#include "kvstore/client/pool_metrics.h"

#include <utility>

namespace tarn::kvstore {
namespace {

const char* Name(Tier tier) {
  if (tier == Tier::kHbm) return "hbm";
  return tier == Tier::kDram ? "dram" : "ssd";
}

const char* NameOf(BlockOrigin origin, bool has_hbm) {
  const char* const names[kBlockOrigins] = {has_hbm ? "hbm" : "dram", "dram", "ssd", "remote",
                                            "remote_ssd"};
  return names[static_cast<size_t>(origin)];
}

LookupMetrics::Options LookupOptions(const PoolMetricsOptions& options) {
  LookupMetrics::Options lookups{.model = options.model, .block_bytes = options.block_bytes};
  for (size_t i = 0; i < kBlockOrigins; ++i) {
    lookups.origins[i] = NameOf(static_cast<BlockOrigin>(i), options.arena_tier == Tier::kHbm);
  }
  return lookups;
}

}  // namespace

PoolMetrics::PoolMetrics(metrics::Registry* registry, const PoolMetricsOptions& options)
    : has_hbm_(options.arena_tier == Tier::kHbm),
      pages_(registry->AddGaugeFamily("tarn_kv_pages", "Pages of each tier.", {{"tier"}})),
      blocks_(registry->AddGaugeFamily(
          "tarn_kv_blocks",
          "Pages by state. Held ones are private or cached; reserved ones are promised to requests "
          "and free or evictable still.",
          {{"tier", "state"}})),
      hits_(registry->AddCounterFamily("tarn_kv_block_hits_total",
                                       "Wanted blocks that were got, by where they came from.",
                                       {{"origin"}})),
      evictions_(registry->AddCounterFamily("tarn_kv_evictions_total",
                                            "Blocks dropped: for others, or because their "
                                            "tenant had more than it may.",
                                            {{"tier", "reason"}})),
      lookups_(registry->AddCounter("tarn_kv_block_lookups_total",
                                    "Blocks that requests wanted: hits and misses.")),
      misses_(
          registry->AddCounter("tarn_kv_block_misses_total", "Wanted blocks that no source gave.")),
      pulled_bytes_(registry->AddCounter("tarn_kv_pulled_bytes_total",
                                         "Bytes of verified blocks pulled from other nodes.")),
      verify_failures_(registry->AddCounter(
          "tarn_kv_verify_failures_total",
          "Pages that came and were not the wanted block: reused meanwhile, or damaged.")),
      pull_failures_(
          registry->AddCounter("tarn_kv_pull_failures_total", "Sources that could not be read.")),
      leaked_(registry->AddGauge("tarn_kv_leaked_pages",
                                 "Pages held or reserved after their owner's deadline.")),
      in_flight_(registry->AddGauge("tarn_kv_pulls_in_flight",
                                    "Blocks on their way into a tier of this node.")),
      rate_(registry->AddGauge("tarn_kv_pull_bytes_per_second",
                               "Measured rate of pulls from other nodes, smoothed.")),
      lost_(registry->AddCounter("tarn_kv_lost_blocks_total",
                                 "Blocks that a tier turned out to hold no more, or damaged.")),
      overtaken_(registry->AddCounterFamily(
          "tarn_kv_overtaken_blocks_total",
          "Blocks that were evicted before write-back had copied them to the tier below.",
          {{"tier"}})),
      tier_bytes_(registry->AddCounterFamily("tarn_kv_tier_bytes_total",
                                             "Bytes of blocks copied into a tier and out of it.",
                                             {{"tier", "direction"}})),
      tier_queued_(registry->AddGaugeFamily(
          "tarn_kv_tier_queued", "Copies into a tier and out of it that wait or are under way.",
          {{"tier", "direction"}})),
      ssd_admissions_(registry->AddCounterFamily("tarn_kv_ssd_admissions_total",
                                                 "Blocks that could have been written to the SSD, "
                                                 "by what admission decided.",
                                                 {{"decision"}})),
      ssd_errors_(registry->AddCounterFamily(
          "tarn_kv_ssd_errors_total", "Reads and writes that the device failed.", {{"direction"}})),
      ssd_skipped_(registry->AddCounterFamily(
          "tarn_kv_ssd_unwritten_blocks_total",
          "Blocks in memory that were not written: refused by admission, or for want of time or "
          "room.",
          {{"reason"}})),
      ssd_device_bytes_(registry->AddCounter(
          "tarn_kv_ssd_device_written_bytes_total",
          "Bytes written to the disk, index and all; over the payload: write amplification.")),
      ssd_damaged_(registry->AddCounter("tarn_kv_ssd_verify_failures_total",
                                        "Slots that were read and did not hold their block.")),
      ssd_recovered_(registry->AddGauge("tarn_kv_ssd_recovered_ratio",
                                        "How much of the index has been read since start.")),
      staged_(registry->AddCounterFamily(
          "tarn_kv_staged_blocks_total",
          "Blocks that other nodes asked to be read from the SSD into memory.", {{"outcome"}})),
      copy_seconds_(registry->AddHistogramFamily(
          "tarn_kv_copy_seconds", "Time of a block's copy into a tier or out of it.",
          {{"tier", "direction"}}, metrics::ExponentialBounds(0.00005, 2, 18))),
      reuse_age_(registry->AddHistogramFamily(
          "tarn_kv_reuse_age_seconds", "How long a block had not been used when it was used again.",
          {{"tier"}}, metrics::ExponentialBounds(0.25, 2, 18))),
      fill_seconds_(registry->AddHistogramFamily(
          "tarn_kv_fill_seconds",
          "Time from when a block was wanted until it was in the arena, by where it came from.",
          {{"origin"}}, metrics::ExponentialBounds(0.00005, 2, 20))),
      tenants_(registry, LookupOptions(options)),
      peers_connected_(
          registry->AddGauge("tarn_kv_peers_connected", "Lives of nodes that can be read from.")),
      peer_failures_(registry->AddCounter("tarn_kv_peer_failures_total",
                                          "Handshakes and connects that failed or took too long.")),
      peer_skips_(registry->AddCounter(
          "tarn_kv_peer_skips_total",
          "Sources that were not asked, for their node had just failed to connect.")) {
  registry
      ->AddGaugeFamily("tarn_kv_model_info", "1; whose blocks these are, for joins by instance.",
                       {{"model"}})
      .With({options.model})
      .Set(1);
}

void PoolMetrics::Raise(metrics::Counter& counter, uint64_t total) {
  counter.Add(total - counter.Value());
}

void PoolMetrics::Update(const NodePoolStats& pool, const PeersStats& peers) {
  UpdatePages(pool);
  UpdateTransfers(pool);
  if (pool.ssd_pages > 0) UpdateSsd(pool);
  peers_connected_.Set(static_cast<double>(peers.connected));
  Raise(peer_failures_, peers.failures);
  Raise(peer_skips_, peers.skips);
}

void PoolMetrics::UpdatePages(const NodePoolStats& stats) {
  const std::string arena = Arena();
  pages_.With({arena}).Set(stats.hbm_pages);
  blocks_.With({arena, "free"}).Set(stats.hbm_free);
  blocks_.With({arena, "cached"}).Set(stats.hbm_cached);
  blocks_.With({arena, "held"}).Set(stats.hbm_held);
  blocks_.With({arena, "reserved"}).Set(stats.hbm_reserved);
  UpdateEvictions(Arena(), stats.evictions_hbm, stats.over_limit_hbm);
  Raise(overtaken_.With({arena}), stats.overtaken_hbm);
  if (has_hbm_) {
    pages_.With({"dram"}).Set(stats.dram_pages);
    blocks_.With({"dram", "free"}).Set(stats.dram_free);
    blocks_.With({"dram", "cached"}).Set(stats.dram_cached);
    UpdateEvictions("dram", stats.evictions_dram, stats.over_limit_dram);
    Raise(overtaken_.With({"dram"}), stats.overtaken_dram);
    UpdateTier("dram", stats.dram);
  }
  leaked_.Set(stats.leaked);
}

void PoolMetrics::UpdateEvictions(const char* tier, uint64_t all, uint64_t over_limit) {
  Raise(evictions_.With({tier, "room"}), all - over_limit);
  Raise(evictions_.With({tier, "tenant_limit"}), over_limit);
}

void PoolMetrics::UpdateTier(const char* tier, const BlockStoreStats& stats) {
  Raise(tier_bytes_.With({tier, "read"}), stats.read_bytes);
  Raise(tier_bytes_.With({tier, "write"}), stats.written_bytes);
  tier_queued_.With({tier, "read"}).Set(stats.reads_queued);
  tier_queued_.With({tier, "write"}).Set(stats.writes_queued);
}

void PoolMetrics::UpdateTransfers(const NodePoolStats& stats) {
  // What leaves the arena is counted where it arrives.
  Raise(tier_bytes_.With({Arena(), "write"}), stats.filled_bytes);
  tier_queued_.With({Arena(), "write"}).Set(stats.fills);
  Raise(hits_.With({Arena()}), stats.hits_hbm);
  if (has_hbm_) Raise(hits_.With({"dram"}), stats.hits_dram);
  Raise(hits_.With({"ssd"}), stats.hits_ssd);
  Raise(hits_.With({"remote"}), stats.hits_remote);
  Raise(hits_.With({"remote_ssd"}), stats.hits_remote_ssd);
  Raise(misses_, stats.misses);
  Raise(lookups_, stats.hits_hbm + stats.hits_dram + stats.hits_ssd + stats.hits_remote +
                      stats.hits_remote_ssd + stats.misses);
  Raise(lost_, stats.lost);
  Raise(pulled_bytes_, stats.pulled_bytes);
  Raise(verify_failures_, stats.verify_failures);
  Raise(pull_failures_, stats.pull_failures);
  in_flight_.Set(stats.pulls_in_flight);
  rate_.Set(stats.pull_bytes_per_us * 1e6);
}

void PoolMetrics::OnCopied(Tier tier, bool write, absl::Duration time) {
  copy_seconds_.With({Name(tier), write ? "write" : "read"}).Observe(absl::ToDoubleSeconds(time));
}

void PoolMetrics::OnReused(Tier tier, absl::Duration age) {
  reuse_age_.With({Name(tier)}).Observe(absl::ToDoubleSeconds(age));
}

void PoolMetrics::OnLookup(const TenantId& tenant, std::optional<BlockOrigin> origin,
                           uint32_t tokens) {
  tenants_.Count(tenant, origin, tokens);
}

void PoolMetrics::OnFilled(BlockOrigin origin, absl::Duration time) {
  fill_seconds_.With({NameOf(origin, has_hbm_)}).Observe(absl::ToDoubleSeconds(time));
}

void PoolMetrics::UpdateSsd(const NodePoolStats& stats) {
  pages_.With({"ssd"}).Set(stats.ssd_pages);
  blocks_.With({"ssd", "free"}).Set(stats.ssd_free);
  blocks_.With({"ssd", "cached"}).Set(stats.ssd_cached);
  UpdateEvictions("ssd", stats.evictions_ssd, stats.over_limit_ssd);
  UpdateTier("ssd", stats.ssd);
  const std::pair<WriteVerdict, const char*> decisions[] = {
      {WriteVerdict::kWrite, "write"},
      {WriteVerdict::kNotWorthIt, "not_worth"},
      {WriteVerdict::kTooFast, "too_fast"}};
  for (const auto& [verdict, name] : decisions) {
    auto it = stats.ssd_verdicts.find(verdict);
    Raise(ssd_admissions_.With({name}), it == stats.ssd_verdicts.end() ? 0 : it->second);
  }
  Raise(ssd_errors_.With({"read"}), stats.ssd.read_errors);
  Raise(ssd_errors_.With({"write"}), stats.ssd.write_errors);
  Raise(ssd_skipped_.With({"refused"}), stats.ssd_refused);
  Raise(ssd_skipped_.With({"late"}), stats.ssd_unwritten);
  Raise(ssd_device_bytes_, stats.ssd.device_written_bytes);
  Raise(ssd_damaged_, stats.ssd.verify_failures);
  ssd_recovered_.Set(stats.ssd_percent_recovered / 100);
  Raise(staged_.With({"ok"}), stats.staged);
  Raise(staged_.With({"failed"}), stats.stage_failures);
}

}  // namespace tarn::kvstore
