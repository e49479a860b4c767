#pragma once

// A Transport between peers in one process, for tests and the simulator.
//
// Deterministic over a SimEventLoop: each op is one task of the reader's loop and ends with the
// copy and `verify` on it. Destroying a transport or a region is how a peer is lost. As with a real
// network, an owner may write a region while a peer copies it; what arrives is then a mix.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transport.h"

namespace tarn {

namespace internal {
class LoopbackNode;
}

// The wire: transports on one fabric reach each other. Owned by the test, outlives its transports.
// Thread-safe.
class LoopbackFabric {
 public:
  // Gives the node its address, never used again.
  std::string Attach(std::shared_ptr<internal::LoopbackNode> node);
  void Detach(const std::string& address);
  // Null if there is no such transport (any more).
  std::shared_ptr<internal::LoopbackNode> Find(const std::string& address);

 private:
  Mutex mutex_;
  uint64_t last_node_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::shared_ptr<internal::LoopbackNode>> nodes_ ABSL_GUARDED_BY(mutex_);
};

class LoopbackTransport : public Transport {
 public:
  LoopbackTransport(LoopbackFabric& fabric, EventLoop& loop);
  // Reads under way end with UNAVAILABLE.
  ~LoopbackTransport() override;

  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) override;
  std::string Address() const override { return address_; }
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override;
  TransferId Read(PeerId peer, ReadBatch batch, Done done) override;
  void Cancel(TransferId transfer) override;
  void Disconnect(PeerId peer) override;

 private:
  class Reader;

  LoopbackFabric& fabric_;
  EventLoop& loop_;
  const std::shared_ptr<internal::LoopbackNode> node_;
  const std::string address_;
  const std::shared_ptr<Reader> reader_;  // tasks on the loop keep it alive
};

}  // namespace tarn
