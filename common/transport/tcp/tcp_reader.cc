#include "common/transport/tcp/tcp_reader.h"

#include <glog/logging.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn {

TcpReader::TcpReader(const TcpOptions& options, TcpThread& thread, TcpRegions& regions)
    : options_(options), thread_(thread), regions_(regions) {}

TcpReader::~TcpReader() { CHECK(transfers_.empty()); }

void TcpReader::AddPeer(PeerId id, TcpSocket socket, std::vector<TcpRegionDescriptor> regions,
                        uint64_t requests) {
  TcpPeer::Reader& self = *this;
  peers_[id].connection = std::make_unique<TcpPeer>(
      id, thread_, self, std::move(socket), std::move(regions), requests, options_.window_bytes);
}

void TcpReader::RemovePeer(PeerId id, const absl::Status& why) {
  // First, so that nothing is asked of it any more.
  peers_.erase(id);
  std::vector<TransferId> ended;
  for (const auto& [transfer_id, transfer] : transfers_) {
    if (transfer.peer == id) ended.push_back(transfer_id);
  }
  for (const TransferId transfer : ended) End(transfer, why);
}

void TcpReader::Start(TransferId id, PeerId peer_id, ReadBatch batch, Finished finished) {
  Transfer transfer{.peer = peer_id, .batch = std::move(batch), .finished = std::move(finished)};
  transfer.left = transfer.batch.ops.size();
  transfer.statuses.resize(transfer.left);
  transfer.settled.resize(transfer.left);
  const bool empty = transfer.left == 0;
  transfers_.emplace(id, std::move(transfer));
  const auto peer = peers_.find(peer_id);
  if (empty || peer == peers_.end()) {
    return End(id,
               absl::UnavailableError(absl::StrCat("peer ", peer_id.value(), " is not connected")));
  }
  peer->second.queue.push_back(id);
  AskForMore(peer->second);
}

void TcpReader::End(TransferId id, const absl::Status& why) {
  auto node = transfers_.extract(id);
  if (node.empty()) return;
  Transfer& transfer = node.mapped();
  for (size_t op = 0; op < transfer.statuses.size(); ++op) {
    if (!transfer.settled[op]) transfer.statuses[op] = why;
  }
  transfer.finished(std::move(transfer.statuses));
}

void TcpReader::EndAll(const absl::Status& why) {
  peers_.clear();
  while (!transfers_.empty()) End(transfers_.begin()->first, why);
}

void TcpReader::Tick() {
  std::vector<PeerId> silent;
  for (const auto& [id, peer] : peers_) {
    if (peer.connection->CountIdleTick() * TcpThread::kTick > options_.stall_timeout) {
      silent.push_back(id);
    }
  }
  for (const PeerId id : silent) {
    RemovePeer(id, absl::UnavailableError(
                       absl::StrCat("peer ", id.value(), " does not answer: given up")));
  }
}

// Op by op in turn: a long batch does not hold up a short one.
void TcpReader::AskForMore(Peer& peer) {
  while (!peer.queue.empty()) {
    const TransferId id = peer.queue.front();
    const auto found = transfers_.find(id);
    if (found == transfers_.end()) {
      peer.queue.pop_front();
      continue;
    }
    Transfer& transfer = found->second;
    const size_t op = transfer.next_op;
    const ReadOp& read = transfer.batch.ops[op];
    const absl::Status status = Check(read, *peer.connection);
    if (status.ok() && !peer.connection->HasRoom(read.to.size())) break;
    peer.queue.pop_front();
    if (++transfer.next_op < transfer.statuses.size()) peer.queue.push_back(id);
    if (status.ok()) {
      peer.connection->Ask(id, op, read);
    } else {
      Settle(id, op, status);
    }
  }
  peer.connection->Flush();
}

absl::Status TcpReader::Check(const ReadOp& op, const TcpPeer& peer) {
  const auto& regions = peer.regions();
  if (op.region.value() >= regions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("region ", op.region.value(), ": the peer has ", regions.size(), " regions"));
  }
  const uint64_t size = regions[op.region.value()].size;
  if (op.offset > size || op.to.size() > size - op.offset) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", op.offset, " + ", op.to.size(),
                                                   " bytes: region ", op.region.value(), " has ",
                                                   size));
  }
  if (!regions_.IsLocal(op.to)) {
    return absl::InvalidArgumentError("`to` is not in a region of this transport");
  }
  return absl::OkStatus();
}

std::span<std::byte> TcpReader::PlaceOf(TransferId id, size_t op) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end()) return {};
  return found->second.batch.ops[op].to;
}

void TcpReader::OnPlaced(TransferId id, size_t op, size_t size) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end() || !found->second.batch.arrival) return;
  Transfer& transfer = found->second;
  if (transfer.arrival == nullptr) transfer.arrival = transfer.batch.arrival(op);
  transfer.arrival->Placed(size);
}

void TcpReader::OnAnswered(TransferId id, size_t op, TcpCode code) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end()) return;
  Settle(id, op, Verdict(found->second, op, code));
}

absl::Status TcpReader::Verdict(Transfer& transfer, size_t op, TcpCode code) {
  const std::unique_ptr<Arrival> arrival = std::move(transfer.arrival);
  if (code == TcpCode::kGone) return absl::UnavailableError("the peer has freed this region");
  if (code != TcpCode::kOk) {
    return absl::InvalidArgumentError("the peer says that this is out of its region's bounds");
  }
  return arrival != nullptr ? arrival->Finish() : transfer.batch.Judge(op);
}

void TcpReader::Settle(TransferId id, size_t op, absl::Status status) {
  Transfer& transfer = transfers_.at(id);
  transfer.statuses[op] = std::move(status);
  transfer.settled[op] = true;
  if (--transfer.left == 0) End(id, absl::OkStatus());
}

void TcpReader::OnRoom(TcpPeer& peer) { AskForMore(peers_.at(peer.id())); }

void TcpReader::OnLost(TcpPeer& peer, const absl::Status& why) {
  const PeerId id = peer.id();
  RemovePeer(id,
             absl::UnavailableError(absl::StrCat("peer ", id.value(), " is lost: ", Message(why))));
}

}  // namespace tarn
