#pragma once

// The transport of a node: one-sided reads where a pair of nodes has them (shared memory on one
// host, RDMA between hosts; ucx/), else the owner sends over TCP (tcp/). Chosen at Connect, for
// each peer; a peer on TCP is logged with the reason.
//
// Memory is allocated by UCX and exported to TCP as well. Contract and threads: transport.h, and
// those of the two.

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/runtime/event_loop.h"
#include "common/transport/tcp/tcp_transport.h"
#include "common/transport/transport.h"
#include "common/transport/ucx/ucx_transport.h"

namespace tarn {

struct NodeTransportOptions {
  bool one_sided = true;  // false: TCP with all peers, and no UCX
  UcxOptions ucx;
  TcpOptions tcp;
};

class NodeTransport : public Transport {
 public:
  // As UcxTransport::Create and TcpTransport::Create.
  static absl::StatusOr<std::unique_ptr<NodeTransport>> Create(const NodeTransportOptions& options,
                                                               EventLoop& loop);

  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes) override;
  std::string Address() const override;
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) override;
  TransferId Read(PeerId peer, ReadBatch batch, Done done) override;
  void Cancel(TransferId transfer) override;
  void Disconnect(PeerId peer) override;

 private:
  NodeTransport(std::unique_ptr<UcxTransport> ucx, std::unique_ptr<TcpTransport> tcp)
      : ucx_(std::move(ucx)), tcp_(std::move(tcp)) {}

  // The ids of peers and transfers are those of ucx_ or tcp_, doubled; those of tcp_ are odd.
  Transport& TransportOf(uint64_t id);

  // TCP goes first: it must not send from memory that UCX has unmapped.
  const std::unique_ptr<UcxTransport> ucx_;  // may be null
  const std::unique_ptr<TcpTransport> tcp_;
};

}  // namespace tarn
