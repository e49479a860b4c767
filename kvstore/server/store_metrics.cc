#include "kvstore/server/store_metrics.h"

namespace tarn::kvstore {
namespace {

const char* Name(AdmissionVerdict verdict) {
  switch (verdict) {
    case AdmissionVerdict::kTake:
      return "take";
    case AdmissionVerdict::kNoRoom:
      return "no_room";
    case AdmissionVerdict::kGone:
      return "gone";
    case AdmissionVerdict::kEnough:
      return "enough";
    case AdmissionVerdict::kNotPlace:
      return "not_place";
  }
  return "";
}

void Raise(metrics::Counter& counter, uint64_t total) { counter.Add(total - counter.Value()); }

}  // namespace

StoreMetrics::StoreMetrics(metrics::Registry* registry)
    : candidates_(registry->AddCounterFamily(
          "tarn_kv_store_candidates_total",
          "Blocks of other nodes that the store looked at, by what it decided.", {{"decision"}})),
      adopted_(registry->AddCounterFamily("tarn_kv_store_adoptions_total",
                                          "Blocks that it began to pull.", {{"outcome"}})),
      handed_over_(registry->AddCounter(
          "tarn_kv_store_handed_over_blocks_total",
          "Blocks that only this store had when it drained, and that others took.")),
      left_behind_(registry->AddCounter("tarn_kv_store_left_behind_blocks_total",
                                        "Of those, what nobody took.")) {}

void StoreMetrics::Update(const AdopterStats& stats) {
  for (const auto& [verdict, count] : stats.verdicts) {
    Raise(candidates_.With({Name(verdict)}), count);
  }
  Raise(candidates_.With({"here"}), stats.here);
  Raise(candidates_.With({"forgotten"}), stats.forgotten);
  Raise(adopted_.With({"ok"}), stats.taken);
  Raise(adopted_.With({"failed"}), stats.failed);
}

void StoreMetrics::Left(const DepartureOutcome& outcome) {
  handed_over_.Add(outcome.taken);
  left_behind_.Add(outcome.left);
}

}  // namespace tarn::kvstore
