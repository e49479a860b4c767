#pragma once

// The loop's side of transfers that a thread of a transport carries out: who waits, and the timers
// that end them. Loop only, and outlives its transport for as long as closures on the loop hold it.

#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"

namespace tarn {

class TransferLedger {
 public:
  struct Entry {
    Transport::Done done;
    TimerId deadline = 0;
    TimerId abandon = 0;
  };

  explicit TransferLedger(EventLoop& loop) : loop_(loop) {}

  EventLoop& loop() { return loop_; }
  Entry& Add(TransferId id, Transport::Done done);
  // Null once it has finished.
  Entry* Find(TransferId id);
  // Runs its `done` and forgets its timers; exactly once.
  void Finish(TransferId id, std::vector<absl::Status> statuses);

 private:
  EventLoop& loop_;
  absl::flat_hash_map<TransferId, Entry> entries_;
};

}  // namespace tarn
