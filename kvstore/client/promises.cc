#include "kvstore/client/promises.h"

namespace tarn::kvstore {

int Promises::holds() const {
  int total = 0;
  for (const auto& [deadline, count] : holds_) total += count;
  return total;
}

int Promises::Leaked(absl::Time now) const {
  int leaked = 0;
  for (const auto& [deadline, count] : holds_) {
    if (deadline >= now) break;
    leaked += count;
  }
  for (const auto& [id, promise] : promises_) {
    if (promise.deadline < now) leaked += promise.remaining;
  }
  return leaked;
}

}  // namespace tarn::kvstore
