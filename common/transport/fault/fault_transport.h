#pragma once

// A Transport whose reads go wrong as a plan says, over any other Transport. For tests and the
// simulator: what a pull does when a peer fails, is slow, hangs, or hands out damaged bytes.
//
// Without faults it is the transport below, and so passes the same conformance suite. Equal plans
// over equal reads give equal faults; over a loopback on a simulated loop whole runs are equal.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"

namespace tarn {

// What happens to one op, in this order.
struct Fault {
  // Never starts: ends at the deadline, Cancel, Disconnect, or with the transport.
  bool stall = false;
  // Starts later, by a timer of the loop.
  absl::Duration delay = absl::ZeroDuration();
  // Not OK: is not read and ends with this.
  absl::Status error;
  // Once the bytes are there, and before `verify` sees them, this bit is flipped, modulo the size.
  std::optional<uint64_t> flip_bit;
};

// Asked once for each op, in order, on the loop.
using FaultPlan = std::function<Fault(PeerId peer, const ReadOp& op)>;

// Chances for each op, in [0, 1], drawn independently.
struct FaultRates {
  double stall = 0;
  double delay = 0;
  absl::Duration max_delay = absl::Milliseconds(100);  // uniform up to this
  double error = 0;
  absl::Status error_status = absl::UnavailableError("injected: the peer is gone");
  double corrupt = 0;
};

FaultPlan NoFaults();
// Equal seeds and rates give equal faults.
FaultPlan SeededFaults(uint64_t seed, const FaultRates& rates);

class FaultTransport : public Transport {
 public:
  // `loop` is the loop of `base`; it outlives this.
  FaultTransport(std::unique_ptr<Transport> base, EventLoop& loop, FaultPlan plan);
  // Reads under way end with UNAVAILABLE. With such, on the loop only.
  ~FaultTransport() override;

  // For reads from now on. On the loop.
  void SetPlan(FaultPlan plan);

  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) override;
  std::string Address() const override;
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override;
  TransferId Read(PeerId peer, ReadBatch batch, Done done) override;
  void Cancel(TransferId transfer) override;
  void Disconnect(PeerId peer) override;

 private:
  class Reader;

  const std::unique_ptr<Transport> base_;
  EventLoop& loop_;
  const std::shared_ptr<Reader> reader_;  // closures on the loop keep it alive
};

}  // namespace tarn
