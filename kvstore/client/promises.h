#pragma once

// Who was promised how many arena pages, and until when owners should have let go.
//
// Mirrors BlockTable's count of promises: their sum over all reservations, plus what fills under
// way keep for waiters, is table.reserved(). Loop-only.

#include <cstdint>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/ids.h"

namespace tarn::kvstore {

struct Promise {
  RequestId owner;
  absl::Time deadline = absl::InfiniteFuture();
  int remaining = 0;
};

class Promises {
 public:
  uint64_t Add(RequestId owner, absl::Time deadline, int pages) {
    promises_[++last_id_] = {owner, deadline, pages};
    return last_id_;
  }
  // Null if it was given back.
  Promise* Find(uint64_t id) {
    auto it = promises_.find(id);
    return it == promises_.end() ? nullptr : &it->second;
  }
  const Promise* Find(uint64_t id) const { return const_cast<Promises*>(this)->Find(id); }
  void Erase(uint64_t id) { promises_.erase(id); }

  // A hold on a page, whose owner should let go by `deadline`.
  void AddHold(absl::Time deadline) { ++holds_[deadline]; }
  void RemoveHold(absl::Time deadline) {
    auto it = holds_.find(deadline);
    if (--it->second == 0) holds_.erase(it);
  }
  int holds() const;
  // Held and promised pages whose deadline has passed.
  int Leaked(absl::Time now) const;

 private:
  uint64_t last_id_ = 0;
  absl::flat_hash_map<uint64_t, Promise> promises_;
  std::map<absl::Time, int> holds_;  // requests hold many pages with one deadline: this stays small
};

}  // namespace tarn::kvstore
