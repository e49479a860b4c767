#include "router/policy/fair_queue.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tarn::router {

double FairQueue::WeightOf(const std::string& tenant) const {
  const auto it = options_.weights.find(tenant);
  return it == options_.weights.end() ? 1.0 : it->second;
}

absl::Status FairQueue::Add(const QueuedRequest& request) {
  if (size() >= options_.max_requests) {
    return absl::ResourceExhaustedError(absl::StrCat("every prefill node is busy, and ", size(),
                                                     " requests wait already, the router's limit"));
  }
  const auto known = tenants_.find(request.tenant);
  if (known != tenants_.end() && known->second.waiting >= options_.max_requests_per_tenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("every prefill node is busy, and ", known->second.waiting,
                     " requests of this tenant wait already, the router's limit"));
  }
  Tenant& tenant = tenants_[request.tenant];
  const double start = std::max(virtual_time_, tenant.end_tag);
  tenant.end_tag = start + static_cast<double>(request.tokens) / WeightOf(request.tenant);
  ++tenant.waiting;
  const Place place = {request.priority, start, ++arrivals_};
  CHECK(waiting_.emplace(request.id, Waiting{request, place}).second);
  order_.emplace(place, request.id);
  tokens_ += request.tokens;
  tokens_by_priority_[request.priority] += request.tokens;
  return absl::OkStatus();
}

std::optional<RequestId> FairQueue::Next() const {
  if (order_.empty()) return std::nullopt;
  return order_.begin()->second;
}

void FairQueue::Start(RequestId id) {
  const auto it = waiting_.find(id);
  CHECK(it != waiting_.end());
  const Waiting waiting = std::move(it->second);
  waiting_.erase(it);
  Take(waiting);
  virtual_time_ = std::max(virtual_time_, std::get<1>(waiting.place));
  if (!waiting_.empty()) return;
  // Nobody waits: nobody has had too much.
  tenants_.clear();
  virtual_time_ = 0;
}

bool FairQueue::Remove(RequestId id) {
  const auto it = waiting_.find(id);
  if (it == waiting_.end()) return false;
  const Waiting waiting = std::move(it->second);
  waiting_.erase(it);
  Take(waiting);
  const auto tenant = tenants_.find(waiting.request.tenant);
  // Later requests of the tenant keep their tags; the next one gets what this one did not use.
  tenant->second.end_tag -=
      static_cast<double>(waiting.request.tokens) / WeightOf(waiting.request.tenant);
  if (tenant->second.waiting == 0 && tenant->second.end_tag <= virtual_time_) {
    tenants_.erase(tenant);
  }
  return true;
}

void FairQueue::Take(const Waiting& waiting) {
  order_.erase(waiting.place);
  tokens_ -= waiting.request.tokens;
  const auto of_priority = tokens_by_priority_.find(waiting.request.priority);
  of_priority->second -= waiting.request.tokens;
  if (of_priority->second == 0) tokens_by_priority_.erase(of_priority);
  --tenants_[waiting.request.tenant].waiting;
}

int64_t FairQueue::TokensAhead(int priority) const {
  int64_t tokens = 0;
  for (const auto& [of, count] : tokens_by_priority_) {
    if (of <= priority) tokens += count;
  }
  return tokens;
}

}  // namespace tarn::router
