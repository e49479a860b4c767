#include "common/transport/ucx/ucx_reader.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/stream_copy.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/ucx_status.h"

namespace tarn {
namespace {

// Copied at a time: some 25 us, then others have their turn.
constexpr size_t kSlice = size_t{256} << 10;

}  // namespace

// Probes count from the upper half, so their ids never meet those of transfers.
UcxReader::UcxReader(ucp_worker_h worker, size_t max_in_flight, absl::Duration keepalive,
                     IsLocal is_local)
    : worker_(worker),
      max_in_flight_(max_in_flight),
      keepalive_(keepalive),
      is_local_(std::move(is_local)),
      last_probe_(TransferId{1} << 63),
      next_look_(SteadyNow() + keepalive) {
  CHECK_GT(max_in_flight, 0u);
}

UcxReader::~UcxReader() { CHECK(idle()); }

absl::Status UcxReader::Connect(PeerId id, const std::string& address,
                                std::vector<UcxRegionDescriptor> regions, Finished probed) {
  ASSIGN_OR_RETURN(auto peer, UcxPeer::Connect(worker_, id, address, std::move(regions),
                                               [this] { peers_closing_ = true; }));
  Transfer transfer{.peer = id, .finished = std::move(probed), .probe = true};
  for (size_t i = 0; i < peer->regions().size(); ++i) {
    transfer.guards.push_back({RegionIndex(static_cast<uint32_t>(i))});
  }
  transfer.guards_chosen = true;
  peers_.emplace(id, std::move(peer));
  const TransferId probe = ++last_probe_;
  Queue(probe, transfers_.emplace(probe, std::move(transfer)).first->second);
  return absl::OkStatus();
}

void UcxReader::Disconnect(PeerId id, const absl::Status& why) {
  if (UcxPeer* peer = FindPeer(id)) {
    peer->Close(why);
    peers_closing_ = true;
  }
}

void UcxReader::Start(TransferId id, PeerId peer, ReadBatch batch, Finished finished) {
  Transfer transfer{.peer = peer, .batch = std::move(batch), .finished = std::move(finished)};
  transfer.statuses.resize(transfer.batch.ops.size());
  Queue(id, transfers_.emplace(id, std::move(transfer)).first->second);
}

void UcxReader::End(TransferId id, const absl::Status& why) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end()) return;
  if (found->second.ended.ok()) found->second.ended = why;
}

void UcxReader::Abandon(TransferId id) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end() || found->second.in_flight == 0) return;
  Disconnect(found->second.peer, absl::UnavailableError("peer does not answer: given up"));
}

void UcxReader::EndAll(const absl::Status& why) {
  for (auto& [id, transfer] : transfers_) End(id, why);
  for (auto& [id, peer] : peers_) Disconnect(id, why);
}

bool UcxReader::Work() {
  LookAfterPeers();
  const bool closing = peers_closing_ && ClosePeers();
  if (queue_.empty() || in_flight_ >= max_in_flight_) return closing;
  const TransferId id = queue_.front();
  queue_.pop_front();
  Transfer& transfer = transfers_.at(id);
  transfer.queued = false;
  Advance(id, transfer);
  return true;
}

void UcxReader::Queue(TransferId id, Transfer& transfer) {
  if (std::exchange(transfer.queued, true)) return;
  // What has its reads behind it goes first: else no batch would end over a network before all that
  // came after it have begun.
  const bool reads_left = transfer.copy || transfer.next_op < transfer.statuses.size();
  reads_left ? queue_.push_back(id) : queue_.push_front(id);
}

// One step, then to the end of the queue: a long batch does not hold up a short one.
void UcxReader::Advance(TransferId id, Transfer& transfer) {
  if (transfer.copy) {
    CopySlice(transfer);
  } else if (transfer.next_op < transfer.statuses.size()) {
    StartOp(id, transfer);
  } else if (!transfer.guards_chosen) {
    if (transfer.in_flight > 0) return;  // Complete queues it again.
    ChooseGuards(transfer);
  } else if (transfer.next_guard < transfer.guards.size()) {
    StartGuard(id, transfer);
  } else {
    if (transfer.in_flight == 0) Finish(id);
    return;
  }
  const bool all_started = !transfer.copy && transfer.next_op == transfer.statuses.size() &&
                           transfer.next_guard == transfer.guards.size();
  if (all_started && transfer.in_flight > 0) return;  // Complete queues it again.
  Queue(id, transfer);
}

absl::StatusOr<const UcxPeer::Region*> UcxReader::Readable(const Transfer& transfer,
                                                           RegionIndex region) {
  RETURN_IF_ERROR(transfer.ended);
  const UcxPeer* peer = FindPeer(transfer.peer);
  if (peer == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("peer ", transfer.peer.value(), " is not connected"));
  }
  RETURN_IF_ERROR(peer->lost());
  if (region.value() >= peer->regions().size()) {
    return absl::InvalidArgumentError(absl::StrCat("region ", region.value(), ": the peer has ",
                                                   peer->regions().size(), " regions"));
  }
  return &peer->regions()[region.value()];
}

absl::Status UcxReader::CheckBounds(const ReadOp& op, const UcxPeer::Region& region) const {
  const uint64_t size = region.descriptor.size;
  if (op.offset > size || op.to.size() > size - op.offset) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", op.offset, " + ", op.to.size(),
                                                   " bytes: region ", op.region.value(), " has ",
                                                   size));
  }
  if (!is_local_(op.to)) {
    return absl::InvalidArgumentError("`to` is not in a region of this transport");
  }
  return absl::OkStatus();
}

void UcxReader::StartOp(TransferId id, Transfer& transfer) {
  const size_t index = transfer.next_op++;
  const ReadOp& op = transfer.batch.ops[index];
  const auto region = Readable(transfer, op.region);
  const absl::Status status = region.ok() ? CheckBounds(op, **region) : region.status();
  if (!status.ok()) {
    transfer.statuses[index] = status;
    return;
  }
  if (op.to.empty()) {
    transfer.statuses[index] = OpOutcome(transfer, index, UCS_OK);
    return;
  }
  if ((*region)->mapped != nullptr) {
    transfer.copy = CopyUnderWay{};
    if (transfer.batch.arrival) transfer.copy->arrival = transfer.batch.arrival(index);
    return CopySlice(transfer);
  }
  Get({this, id, index, false}, transfer, **region, (*region)->descriptor.base + op.offset,
      op.to.data(), op.to.size());
}

void UcxReader::CopySlice(Transfer& transfer) {
  const size_t index = transfer.next_op - 1;
  const ReadOp& op = transfer.batch.ops[index];
  const absl::Status status = CopyNext(transfer, op, *transfer.copy);
  if (status.ok() && transfer.copy->copied < op.to.size()) return;
  const std::unique_ptr<Arrival> arrival = std::move(transfer.copy->arrival);
  transfer.copy.reset();
  transfer.statuses[index] = !status.ok() ? status
                             : arrival    ? arrival->Finish()
                                          : transfer.batch.Judge(index);
}

// Between two slices the peer may have gone, or the transfer been cancelled.
absl::Status UcxReader::CopyNext(const Transfer& transfer, const ReadOp& op, CopyUnderWay& copy) {
  ASSIGN_OR_RETURN(const UcxPeer::Region* region, Readable(transfer, op.region));
  const size_t size = std::min(kSlice, op.to.size() - copy.copied);
  const size_t offset = op.offset + copy.copied;
  if (region->mapping != nullptr) region->mapping->Prepare(offset, size);
  if (copy.arrival != nullptr) {
    copy.arrival->Copy({region->mapped + offset, size});
  } else {
    StreamCopy(op.to.data() + copy.copied, region->mapped + offset, size);
  }
  copy.copied += size;
  return region->CheckMappedGuard();
}

// Mapped guards have been looked at after each op. Over a network that would double the messages,
// and once behind the last op says as much.
void UcxReader::ChooseGuards(Transfer& transfer) {
  transfer.guards_chosen = true;
  for (const RegionIndex region : transfer.unguarded) transfer.guards.push_back({region});
}

void UcxReader::StartGuard(TransferId id, Transfer& transfer) {
  const size_t index = transfer.next_guard++;
  Guard& guard = transfer.guards[index];
  const auto region = Readable(transfer, guard.region);
  if (!region.ok()) {
    guard.status = region.status();
  } else if ((*region)->mapped != nullptr) {
    guard.status = (*region)->CheckMappedGuard();
  } else {
    Get({this, id, index, true}, transfer, **region, (*region)->descriptor.guard_address,
        &guard.value, sizeof(guard.value));
  }
}

void UcxReader::Get(const Flight& flight, Transfer& transfer, const UcxPeer::Region& region,
                    uint64_t address, void* to, size_t size) {
  UcxPeer* peer = FindPeer(transfer.peer);
  auto owned = std::make_unique<Flight>(flight);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.user_data = owned.get();
  param.cb.send = [](void* request, ucs_status_t status, void* user_data) {
    const std::unique_ptr<Flight> flight(static_cast<Flight*>(user_data));
    ucp_request_free(request);
    flight->reader->Complete(*flight, status);
  };
  ++peer->reads_in_flight;
  ++transfer.in_flight;
  ++in_flight_;
  void* request = ucp_get_nbx(peer->endpoint(), to, size, address, region.rkey, &param);
  if (UCS_PTR_IS_PTR(request)) {
    (void)owned.release();
  } else {
    Complete(flight, UCS_PTR_STATUS(request));
  }
}

void UcxReader::Complete(const Flight& flight, ucs_status_t status) {
  Transfer& transfer = transfers_.at(flight.transfer);
  if (flight.is_guard) {
    Guard& guard = transfer.guards[flight.index];
    guard.status = FromUcx(status, "read of a region's guard");
    const UcxPeer* peer = FindPeer(transfer.peer);
    if (guard.status.ok() &&
        guard.value != peer->regions()[guard.region.value()].descriptor.guard) {
      guard.status = absl::UnavailableError("the peer has freed this region");
    }
  } else {
    transfer.statuses[flight.index] = OpOutcome(transfer, flight.index, status);
  }
  --FindPeer(transfer.peer)->reads_in_flight;
  --transfer.in_flight;
  --in_flight_;
  Queue(flight.transfer, transfer);
}

absl::Status UcxReader::OpOutcome(Transfer& transfer, size_t index, ucs_status_t status) {
  RETURN_IF_ERROR(transfer.ended);
  const UcxPeer* peer = FindPeer(transfer.peer);
  if (status != UCS_OK) {
    RETURN_IF_ERROR(peer->lost());
    return FromUcx(status, absl::StrCat("read from peer ", transfer.peer.value()));
  }
  transfer.unguarded.insert(transfer.batch.ops[index].region);
  return transfer.batch.Judge(index);
}

// What came from a region that was gone by the end is not to be used.
void UcxReader::FinishOps(Transfer& transfer) {
  for (const Guard& guard : transfer.guards) {
    if (guard.status.ok()) continue;
    for (size_t i = 0; i < transfer.statuses.size(); ++i) {
      const bool affected = transfer.batch.ops[i].region == guard.region;
      if (affected && transfer.statuses[i].ok()) transfer.statuses[i] = guard.status;
    }
  }
}

void UcxReader::Finish(TransferId id) {
  Transfer transfer = std::move(transfers_.extract(id).mapped());
  if (transfer.probe) {
    for (const Guard& guard : transfer.guards) transfer.statuses.push_back(guard.status);
  } else {
    FinishOps(transfer);
  }
  transfer.finished(std::move(transfer.statuses));
}

std::vector<std::shared_ptr<MappedRegion>> UcxReader::MappedRegionsOf(PeerId id) {
  std::vector<std::shared_ptr<MappedRegion>> mapped;
  const UcxPeer* peer = FindPeer(id);
  if (peer == nullptr) return mapped;
  for (const UcxPeer::Region& region : peer->regions()) {
    if (region.mapping != nullptr) mapped.push_back(region.mapping);
  }
  return mapped;
}

UcxPeer* UcxReader::FindPeer(PeerId id) {
  const auto found = peers_.find(id);
  return found == peers_.end() ? nullptr : found->second.get();
}

void UcxReader::LookAfterPeers() {
  if (SteadyNow() < next_look_) return;
  next_look_ = SteadyNow() + keepalive_;
  for (const auto& [id, peer] : peers_) {
    if (peer->lost().ok() && peer->ProcessGone()) {
      Disconnect(id, absl::UnavailableError("the peer's process has ended"));
    }
  }
}

// UCX must not be asked to close an endpoint from its own error callback, so it happens here.
bool UcxReader::ClosePeers() {
  bool closed = false;
  bool left = false;
  for (auto it = peers_.begin(); it != peers_.end();) {
    UcxPeer& peer = *it->second;
    if (!peer.lost().ok()) peer.Close(peer.lost());
    if (!peer.lost().ok() && peer.Closed()) {
      it = peers_.erase(it);
      closed = true;
    } else {
      left |= !peer.lost().ok();
      ++it;
    }
  }
  peers_closing_ = left;
  return closed;
}

}  // namespace tarn
