#pragma once

// Runs batches of reads over the connections of one transport, each op with one outcome. Private to
// tcp/; of the reading thread.

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "common/transport/tcp/tcp_options.h"
#include "common/transport/tcp/tcp_peer.h"
#include "common/transport/tcp/tcp_regions.h"
#include "common/transport/tcp/tcp_thread.h"

namespace tarn {

class TcpReader : private TcpPeer::Reader {
 public:
  using Finished = std::function<void(std::vector<absl::Status>)>;

  // Both outlive it.
  TcpReader(const TcpOptions& options, TcpThread& thread, TcpRegions& regions);
  // Without transfers.
  ~TcpReader() override;

  void AddPeer(PeerId id, TcpSocket socket, std::vector<TcpRegionDescriptor> regions,
               uint64_t requests);
  // Its transfers end with `why`.
  void RemovePeer(PeerId id, const absl::Status& why);

  void Start(TransferId id, PeerId peer, ReadBatch batch, Finished finished);
  // What has no outcome yet ends with `why`, at once; bytes that come later go nowhere.
  void End(TransferId id, const absl::Status& why);
  void EndAll(const absl::Status& why);
  // Gives up peers that owe bytes and send none.
  void Tick();

 private:
  struct Transfer {
    PeerId peer;
    ReadBatch batch;
    Finished finished;
    std::vector<absl::Status> statuses;  // by op
    std::vector<bool> settled;           // by op: it has its status
    size_t left = 0;                     // ops without
    size_t next_op = 0;
    std::unique_ptr<Arrival> arrival;  // of the op that comes now
  };
  struct Peer {
    std::unique_ptr<TcpPeer> connection;
    std::deque<TransferId> queue;  // with ops to ask for, in turn
  };

  std::span<std::byte> PlaceOf(TransferId transfer, size_t op) override;
  void OnPlaced(TransferId transfer, size_t op, size_t size) override;
  void OnAnswered(TransferId transfer, size_t op, TcpCode code) override;
  void OnRoom(TcpPeer& peer) override;
  void OnLost(TcpPeer& peer, const absl::Status& why) override;

  void AskForMore(Peer& peer);
  // INVALID_ARGUMENT: what cannot be asked for.
  absl::Status Check(const ReadOp& op, const TcpPeer& peer);
  absl::Status Verdict(Transfer& transfer, size_t op, TcpCode code);
  // May finish the transfer.
  void Settle(TransferId id, size_t op, absl::Status status);

  const TcpOptions options_;
  TcpThread& thread_;
  TcpRegions& regions_;
  std::map<PeerId, Peer> peers_;
  std::map<TransferId, Transfer> transfers_;
};

}  // namespace tarn
