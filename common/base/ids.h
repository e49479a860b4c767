#pragma once

// Strong identifiers: two kinds of id never mix by accident.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <utility>

namespace tarn {

// An integer or string that is only equal to ids of its own kind. Ordered and hashable.
template <typename Tag, typename Value>
class StrongId {
 public:
  StrongId() = default;
  explicit StrongId(Value value) : value_(std::move(value)) {}

  const Value& value() const { return value_; }

  friend auto operator<=>(const StrongId&, const StrongId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, const StrongId& id) {
    return out << id.value_;
  }

 private:
  Value value_{};
};

// A node's name: unique in the cluster and stable over restarts ("prefill-0").
using NodeId = StrongId<struct NodeIdTag, std::string>;

// One life of a process: drawn at random when it starts. Same name, new incarnation = new memory.
using Incarnation = StrongId<struct IncarnationTag, uint64_t>;

// Who a request is made for: the unit of quotas and accounts. Empty: nobody in particular.
using TenantId = StrongId<struct TenantIdTag, std::string>;

// A request inside the cluster; drawn by the router, unique over all routers.
using RequestId = StrongId<struct RequestIdTag, uint64_t>;

}  // namespace tarn

template <typename Tag, typename Value>
struct std::hash<tarn::StrongId<Tag, Value>> {
  size_t operator()(const tarn::StrongId<Tag, Value>& id) const {
    return std::hash<Value>()(id.value());
  }
};
