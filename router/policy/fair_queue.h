#pragma once

// Requests that wait in the router because every prefill node has enough to do, and which of them
// goes next: the most urgent priority first; within one priority the tenant who has had the least
// of the cluster for his weight.
//
// Start-time fair queueing (Goyal, Vin and Cheng 1996) in uncached tokens: each request gets a
// start tag, the later of the queue's virtual time and the end tag of its tenant's previous
// request; its end tag is that plus tokens over weight. The least start tag goes first, and becomes
// the virtual time. So a tenant who floods waits behind his own requests, one who was idle does not
// save up, and with one tenant it is first come, first served.
//
// Bounded. Pure, thread-compatible; equal histories give equal orders.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"

namespace tarn::router {

struct FairQueueOptions {
  int max_requests = 4096;
  int max_requests_per_tenant = 1024;
  std::map<std::string, double> weights;  // by tenant, > 0; 1 for those who are not named
};

struct QueuedRequest {
  RequestId id;
  std::string tenant;
  int priority = 0;    // lower first
  int64_t tokens = 0;  // to compute, as far as is known
};

class FairQueue {
 public:
  explicit FairQueue(FairQueueOptions options) : options_(std::move(options)) {}

  // RESOURCE_EXHAUSTED says which limit was met. `request.id` is not in the queue.
  absl::Status Add(const QueuedRequest& request);
  // Who goes next; stays in the queue.
  std::optional<RequestId> Next() const;
  // The request goes to the nodes: its tenant has had that much now.
  void Start(RequestId id);
  // It is no longer wanted, and has cost nothing. False: it was not here.
  bool Remove(RequestId id);

  int size() const { return static_cast<int>(waiting_.size()); }
  int64_t tokens() const { return tokens_; }
  // Of all requests that would go before a new one of this priority, were there one tenant.
  int64_t TokensAhead(int priority) const;

 private:
  // Priority, start tag, order of arrival.
  using Place = std::tuple<int, double, uint64_t>;
  struct Waiting {
    QueuedRequest request;
    Place place;
  };
  struct Tenant {
    int waiting = 0;
    double end_tag = 0;
  };

  double WeightOf(const std::string& tenant) const;
  void Take(const Waiting& waiting);

  const FairQueueOptions options_;
  uint64_t arrivals_ = 0;
  double virtual_time_ = 0;
  int64_t tokens_ = 0;
  absl::flat_hash_map<RequestId, Waiting> waiting_;
  std::map<Place, RequestId> order_;
  std::map<int, int64_t> tokens_by_priority_;
  absl::flat_hash_map<std::string, Tenant>
      tenants_;  // with something waiting, or ahead of the time
};

}  // namespace tarn::router
