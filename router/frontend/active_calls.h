#pragma once

// The calls under way, of both protocols: what keeps them alive. Loop-only.

#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/metrics/registry.h"

namespace tarn::router {

// A client's call from its acceptance to its end. Destroying it cancels what it still runs.
class ActiveCall {
 public:
  virtual ~ActiveCall() = default;
};

class ActiveCalls {
 public:
  // `gauge` follows size() and outlives this.
  explicit ActiveCalls(metrics::Gauge& gauge) : gauge_(gauge) {}

  void Add(std::shared_ptr<ActiveCall> call) {
    const ActiveCall* key = call.get();
    calls_.emplace(key, std::move(call));
    gauge_.Set(static_cast<double>(calls_.size()));
  }

  // Destroys the call (if it is still here); the call may ask for this itself, and then must touch
  // nothing of its own any more.
  void Remove(const ActiveCall* call) {
    const auto node = calls_.extract(call);
    gauge_.Set(static_cast<double>(calls_.size()));
  }

  size_t size() const { return calls_.size(); }

 private:
  metrics::Gauge& gauge_;
  absl::flat_hash_map<const ActiveCall*, std::shared_ptr<ActiveCall>> calls_;
};

}  // namespace tarn::router
