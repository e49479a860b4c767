#include "kvstore/core/source_rates.h"

#include <glog/logging.h>

#include <algorithm>

namespace tarn::kvstore {
namespace {

constexpr int kMaxFailures = 10;  // 2^10: from milliseconds to seconds

// Bytes a microsecond, before anything was measured: DRAM, a 100 Gb/s link, an NVMe disk, the same
// behind a link.
double Guess(const SourceId& source) {
  const bool own = source.node.value().empty();
  if (source.tier == Tier::kSsd) return own ? 3000 : 2500;
  return own ? 20000 : 10000;
}

}  // namespace

void SourceRates::Start(const SourceId& source, absl::Time now) {
  if (!sources_.contains(source)) MakeRoom();
  sources_[source].meter.Start(now);
}

void SourceRates::Finish(const SourceId& id, uint64_t bytes, absl::Time now) {
  auto it = sources_.find(id);
  CHECK(it != sources_.end()) << "a transfer ended that was not begun";
  Source& source = it->second;
  source.meter.Finish(bytes, now);
  source.failures = bytes > 0 ? 0 : std::min(FailuresAt(source, now) + 1, kMaxFailures);
  source.forgiven_until = now;
}

// Without this a source that nobody asks any more could never redeem itself.
int SourceRates::FailuresAt(const Source& source, absl::Time now) {
  double forgiven = std::max(0.0, absl::ToDoubleSeconds(now - source.forgiven_until));
  return forgiven >= source.failures ? 0 : source.failures - static_cast<int>(forgiven);
}

void SourceRates::Cancel(const SourceId& id, absl::Time now) {
  auto it = sources_.find(id);
  CHECK(it != sources_.end()) << "a transfer ended that was not begun";
  it->second.meter.Finish(0, now);
}

void SourceRates::MakeRoom() {
  if (sources_.size() < max_sources_) return;
  std::erase_if(sources_, [](const auto& entry) { return entry.second.meter.in_flight() == 0; });
}

absl::Duration SourceRates::Expect(const SourceId& id, int blocks, uint64_t block_bytes,
                                   absl::Time now) const {
  auto it = sources_.find(id);
  double rate = Guess(id);
  double queued = blocks;
  double penalty = 1;
  if (it != sources_.end()) {
    const Source& source = it->second;
    if (source.meter.bytes_per_us() > 0) rate = source.meter.bytes_per_us();
    queued += source.meter.in_flight();
    penalty = 1 << FailuresAt(source, now);
  }
  return absl::Microseconds(queued * static_cast<double>(block_bytes) / rate * penalty);
}

double SourceRates::BytesPerUs(const SourceId& id) const {
  auto it = sources_.find(id);
  return it == sources_.end() ? 0 : it->second.meter.bytes_per_us();
}

}  // namespace tarn::kvstore
