#pragma once

// A Transport over UCX: shared memory on one host, RDMA between hosts. TCP only for trials, see
// UcxOptions::tls.
//
// Memory is allocated by UCX, so a read from a neighbour on the same host is one copy from its
// mapped pages, by the reader's CPU: ours, past the caches, an `arrival` fused in. Over UCX's TCP
// the owner's progress thread answers. One progress thread per transport owns all UCX objects and
// copies, in slices; it sleeps when idle.
//
// A peer is lost when UCX says so (connection reset, process gone: found within
// `UcxOptions::keepalive`), or when it does not answer reads `abandon_after` their deadline or
// Cancel. All its reads then end with UNAVAILABLE; Connect again for a new one.
//
// A freed region gives its pages back at once, but keeps its addresses until the transport and all
// its regions have ended. Allocate refuses what would not be shared memory, if `tls` allows that.
// UCX reads the process' UCX_* variables itself; nothing else here does. The destructor ends reads
// under way with UNAVAILABLE; their `done` still runs on the loop.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/runtime/event_loop.h"
#include "common/transport/transfer_ledger.h"
#include "common/transport/transport.h"
#include "common/transport/ucx/ucx_options.h"

namespace tarn {

class UcxEngine;

class UcxTransport : public Transport {
 public:
  // `loop` is where `done` runs; it outlives the transport. INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<UcxTransport>> Create(const UcxOptions& options,
                                                              EventLoop& loop);
  ~UcxTransport() override;

  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) override;
  std::string Address() const override;
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override;
  TransferId Read(PeerId peer, ReadBatch batch, Done done) override;
  void Cancel(TransferId transfer) override;
  void Disconnect(PeerId peer) override;

 private:
  UcxTransport(const UcxOptions& options, EventLoop& loop, std::shared_ptr<UcxEngine> engine);

  const UcxOptions options_;
  EventLoop& loop_;
  const std::shared_ptr<UcxEngine> engine_;  // shared with its regions; weakly with timers
  const std::shared_ptr<TransferLedger> ledger_;
  std::atomic<uint64_t> last_peer_ = 0;
  TransferId last_transfer_ = 0;  // loop only
};

}  // namespace tarn
