#pragma once

// What a store counts besides what every node with a pool does: see README.md.

#include "common/metrics/registry.h"
#include "kvstore/server/adopter.h"
#include "kvstore/server/departure.h"

namespace tarn::kvstore {

// Thread-compatible; the registry outlives it.
class StoreMetrics {
 public:
  explicit StoreMetrics(metrics::Registry* registry);
  void Update(const AdopterStats& stats);
  void Left(const DepartureOutcome& outcome);

 private:
  metrics::Family<metrics::Counter>& candidates_;
  metrics::Family<metrics::Counter>& adopted_;
  metrics::Counter& handed_over_;
  metrics::Counter& left_behind_;
};

}  // namespace tarn::kvstore
