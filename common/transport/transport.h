#pragma once

// One-sided reads of a peer's registered memory into registered memory here.
//
// Every transfer in tarn is a pull by whoever will own the bytes: no node writes into another's
// memory, and regions are exported read-only. Implementations: ucx/ (shared memory, RDMA), tcp/
// (the owner sends), node/ (the better of the two for each peer), loopback/ (peers in one process,
// for tests), fault/ (a decorator that injects errors). One conformance suite (conformance.h) runs
// against all of them.
//
// Ownership: destroying a Transport ends its reads with UNAVAILABLE, and those of its peers. `done`
// may run later, but nothing touches local memory any more when the destructor returns. A region
// that outlives its transport is plain memory.
// Threads: Allocate and Connect may block, and may be called from any thread. Read, Cancel and
// Disconnect never block and are called on the transport's EventLoop, on which `done` runs too.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"

namespace tarn {

// A region of one transport, counted from 0 in order of allocation.
using RegionIndex = StrongId<struct RegionIndexTag, uint32_t>;
// A connected peer; never reused within a transport.
using PeerId = StrongId<struct PeerIdTag, uint64_t>;
// A batch of reads; never reused within a transport, 0 names none.
using TransferId = uint64_t;

// Memory that peers can read. Freed with this object; reads from it that are under way by then
// fail at the reader.
class RegisteredMemory {
 public:
  virtual ~RegisteredMemory() = default;
  virtual RegionIndex index() const = 0;
  virtual std::span<std::byte> bytes() const = 0;
  // What a peer needs to read this region (address, size, remote key); opaque to others.
  virtual std::string descriptor() const = 0;
};

// What one node tells another so that it can be read from: sent in the pool's handshake.
struct PeerAddress {
  std::string worker;                // Transport::Address()
  std::vector<std::string> regions;  // descriptor() by region index
};

struct ReadOp {
  RegionIndex region;       // of the peer
  uint64_t offset = 0;      // in that region
  std::span<std::byte> to;  // in a region of this transport
};

// Takes the bytes of one op on their way in, so that checking them costs no walk over memory of its
// own. Called by one thread at a time, in the order of the bytes; destroyed without Finish if the
// op fails.
class Arrival {
 public:
  virtual ~Arrival() = default;
  // Copies the op's next bytes to their place in `to`. They lie in a peer's memory, which may
  // change meanwhile: what is judged is what was copied.
  virtual void Copy(std::span<const std::byte> from) = 0;
  // The next `size` bytes are in their place already.
  virtual void Placed(size_t size) = 0;
  // The verdict, after the last byte.
  virtual absl::Status Finish() = 0;
};

struct ReadBatch {
  std::vector<ReadOp> ops;
  // What is not finished by then ends with DEADLINE_EXCEEDED.
  absl::Time deadline = absl::InfiniteFuture();
  // Checks what arrived for ops[i], on a thread of the transport, right after the bytes came while
  // they are in cache. Quick, and touches only those bytes. May be empty.
  std::function<absl::Status(size_t i)> verify;
  // The same, but fused into the transfer where the transport can; instead of `verify`. Makes what
  // takes the bytes of ops[i], on a thread of the transport.
  std::function<std::unique_ptr<Arrival>(size_t i)> arrival;

  // What `verify` or `arrival` says of ops[i], whose bytes are all in their place.
  absl::Status Judge(size_t i) const {
    if (!arrival) return verify ? verify(i) : absl::OkStatus();
    const std::unique_ptr<Arrival> taker = arrival(i);
    taker->Placed(ops[i].to.size());
    return taker->Finish();
  }
};

class Transport {
 public:
  // One status for each op of the batch, in order.
  using Done = std::function<void(std::vector<absl::Status>)>;

  virtual ~Transport() = default;

  // Zeroed memory, aligned to 4 KiB, registered for reads by peers. Slow (pins pages): slabs at
  // start, not blocks per request. RESOURCE_EXHAUSTED names the size.
  virtual absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) = 0;

  // Where peers find this transport; opaque.
  virtual std::string Address() const = 0;

  // Prepares reads from a peer, which may be this transport itself.
  // INVALID_ARGUMENT: not an address of this kind. UNAVAILABLE: cannot be reached.
  virtual absl::StatusOr<PeerId> Connect(const PeerAddress& peer) = 0;

  // Starts the reads. `done` runs exactly once, on the loop, later than this call. The local memory
  // must stay allocated, and must not be used, until then, also after Cancel.
  // Per op: INVALID_ARGUMENT (unknown region, out of bounds), UNAVAILABLE (peer lost),
  // DEADLINE_EXCEEDED, CANCELLED, or what `verify` or `arrival` said.
  virtual TransferId Read(PeerId peer, ReadBatch batch, Done done) = 0;

  // Asks for an early end. `done` still runs, with CANCELLED or the outcome for each op.
  virtual void Cancel(TransferId transfer) = 0;

  // Forgets a peer. Reads under way end with UNAVAILABLE or their outcome.
  virtual void Disconnect(PeerId peer) = 0;
};

}  // namespace tarn
