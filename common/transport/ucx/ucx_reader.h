#pragma once

// Runs batches of reads: in turn, a bounded number in flight, each op with one outcome. Where the
// peer's region is mapped here, it copies itself, a slice at a time; else UCX reads. Private to
// ucx/; progress thread only.

#include <ucp/api/ucp.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/transport/transport.h"
#include "common/transport/ucx/ucx_peer.h"

namespace tarn {

class UcxReader {
 public:
  using Finished = std::function<void(std::vector<absl::Status>)>;
  // Whether the bytes lie in a region of this transport.
  using IsLocal = std::function<bool(std::span<const std::byte>)>;

  // Peers on this host are looked after every `keepalive`.
  UcxReader(ucp_worker_h worker, size_t max_in_flight, absl::Duration keepalive, IsLocal is_local);
  // Idle.
  ~UcxReader();

  // Makes a peer known. `probed` gets one status for each of its regions: whether it can be read.
  // INVALID_ARGUMENT, UNAVAILABLE as Transport::Connect; `probed` does not run then.
  absl::Status Connect(PeerId id, const std::string& address,
                       std::vector<UcxRegionDescriptor> regions, Finished probed);
  void Disconnect(PeerId id, const absl::Status& why);

  void Start(TransferId id, PeerId peer, ReadBatch batch, Finished finished);
  // What has not started ends with `why`; what is in flight is waited for and counts as `why` too.
  void End(TransferId id, const absl::Status& why);
  // Gives up the peer that a transfer still waits for, so that UCX completes its reads.
  void Abandon(TransferId id);
  void EndAll(const absl::Status& why);

  // The regions of a peer that are mapped here.
  std::vector<std::shared_ptr<MappedRegion>> MappedRegionsOf(PeerId id);

  // Starts one read, copies one slice of a mapped one, or clears away one thing; false: nothing to
  // do until UCX or a command says so.
  bool Work();
  bool idle() const { return transfers_.empty() && peers_.empty(); }

 private:
  // A read of a region's guard, to see that the region was alive after the reads before it.
  struct Guard {
    RegionIndex region;
    uint64_t value = 0;
    absl::Status status;
  };
  // An op that reads a mapped region.
  struct CopyUnderWay {
    std::unique_ptr<Arrival> arrival;  // may be null
    size_t copied = 0;
  };
  struct Transfer {
    PeerId peer;
    ReadBatch batch;
    Finished finished;
    bool probe = false;  // reports its guards, not its ops

    std::vector<absl::Status> statuses;  // by op
    std::optional<CopyUnderWay> copy;    // of ops[next_op - 1]
    std::set<RegionIndex> unguarded;     // read from, their guards not looked at yet
    std::vector<Guard> guards;           // filled when the ops are done
    size_t next_op = 0;
    size_t next_guard = 0;
    size_t in_flight = 0;
    bool guards_chosen = false;
    bool queued = false;
    absl::Status ended;  // OK: goes on
  };
  // What UCX hands back when a read completes.
  struct Flight {
    UcxReader* reader;
    TransferId transfer;
    size_t index;
    bool is_guard;
  };

  void Queue(TransferId id, Transfer& transfer);
  void Advance(TransferId id, Transfer& transfer);
  void StartOp(TransferId id, Transfer& transfer);
  void CopySlice(Transfer& transfer);
  absl::Status CopyNext(const Transfer& transfer, const ReadOp& op, CopyUnderWay& copy);
  void StartGuard(TransferId id, Transfer& transfer);
  void ChooseGuards(Transfer& transfer);
  void Finish(TransferId id);
  void FinishOps(Transfer& transfer);

  // The peer's region, if `transfer` may read from it now.
  absl::StatusOr<const UcxPeer::Region*> Readable(const Transfer& transfer, RegionIndex region);
  absl::Status CheckBounds(const ReadOp& op, const UcxPeer::Region& region) const;
  void Get(const Flight& flight, Transfer& transfer, const UcxPeer::Region& region,
           uint64_t address, void* to, size_t size);
  void Complete(const Flight& flight, ucs_status_t status);
  absl::Status OpOutcome(Transfer& transfer, size_t index, ucs_status_t status);

  UcxPeer* FindPeer(PeerId id);
  bool ClosePeers();
  void LookAfterPeers();

  const ucp_worker_h worker_;
  const size_t max_in_flight_;
  const absl::Duration keepalive_;
  const IsLocal is_local_;
  std::map<PeerId, std::unique_ptr<UcxPeer>> peers_;
  std::map<TransferId, Transfer> transfers_;
  std::deque<TransferId> queue_;  // transfers with something to start or to finish
  size_t in_flight_ = 0;
  TransferId last_probe_;
  bool peers_closing_ = false;
  absl::Time next_look_;
};

}  // namespace tarn
