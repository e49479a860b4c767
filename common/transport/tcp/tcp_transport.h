#pragma once

// A Transport over plain TCP sockets, for pairs of hosts without one-sided reads: the owner's
// thread sends what the reader asks for, from the region, and the reader receives it straight into
// its place. Why not UCX: docs/decisions/0012-tcp.md.
//
// One thread serves, one reads; one connection a peer. A peer is lost when its connection breaks,
// or when it owes bytes and sends none for `TcpOptions::stall_timeout`. Then its reads end with
// UNAVAILABLE; Connect again for a new one. Deadline, Cancel and Disconnect end a transfer at once,
// and what still comes for it goes nowhere. Nobody is kept from a region by a slow reader: a region
// that is freed while it is being sent fails at the reader.
//
// Trust: peers must know a random token, which goes over the network in clear, as do the bytes.

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "common/runtime/event_loop.h"
#include "common/transport/tcp/tcp_options.h"
#include "common/transport/transfer_ledger.h"
#include "common/transport/transport.h"

namespace tarn {

class TcpEngine;

// Memory of somebody else that peers may read over TCP until this is destroyed, and that may be
// read into.
class TcpExport {
 public:
  virtual ~TcpExport() = default;
  virtual RegionIndex index() const = 0;
  virtual std::string descriptor() const = 0;
};

class TcpTransport : public Transport {
 public:
  // `loop` is where `done` runs; it outlives the transport. INVALID_ARGUMENT, UNAVAILABLE: why it
  // cannot listen.
  static absl::StatusOr<std::unique_ptr<TcpTransport>> Create(const TcpOptions& options,
                                                              EventLoop& loop);
  ~TcpTransport() override;

  // Plain memory of this process.
  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) override;
  // `bytes` outlive the export.
  std::unique_ptr<TcpExport> Export(std::span<std::byte> bytes);

  std::string Address() const override;
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override;
  TransferId Read(PeerId peer, ReadBatch batch, Done done) override;
  void Cancel(TransferId transfer) override;
  void Disconnect(PeerId peer) override;

 private:
  TcpTransport(const TcpOptions& options, EventLoop& loop, std::shared_ptr<TcpEngine> engine);
  void FinishLater(TransferId id, std::vector<absl::Status> statuses);

  const TcpOptions options_;
  EventLoop& loop_;
  const std::shared_ptr<TcpEngine> engine_;  // weakly with timers
  const std::shared_ptr<TransferLedger> ledger_;
  std::atomic<uint64_t> last_peer_ = 0;
  TransferId last_transfer_ = 0;  // loop only
};

}  // namespace tarn
