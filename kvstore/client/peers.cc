#include "kvstore/client/peers.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/unary.h"
#include "kvstore/client/handshake.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {

Peers::Peers(EventLoop* loop, EventLoop* blocking_loop, Transport* transport)
    : loop_(loop), blocking_loop_(blocking_loop), transport_(transport) {}

size_t Peers::connected() const {
  return std::count_if(entries_.begin(), entries_.end(),
                       [](const auto& entry) { return entry.second.connected; });
}

void Peers::Resolve(const BlockSource& source, absl::Time deadline, Done done) {
  Life life{source.node, source.incarnation};
  Entry& entry = entries_[life];
  if (entry.connected) return done(entry.peer);
  entry.waiting.push_back(std::move(done));
  if (entry.attempt != 0) return;
  if (self_.node_id().empty()) {
    return Finish(life, absl::UnavailableError("this node is still starting"));
  }
  entry.attempt = ++last_attempt_;
  Handshake(life, entry, source.rpc_address, deadline - loop_->Now());
}

void Peers::Handshake(const Life& life, Entry& entry, const std::string& address,
                      absl::Duration timeout) {
  v1::HandshakeRequest request;
  *request.mutable_caller() = self_;
  entry.stub = v1::Pool::NewStub(MakeChannel(address));
  entry.cancel_call =
      CallUnary(entry.stub->async(), &v1::Pool::StubInterface::async_interface::Handshake, request,
                std::max(timeout, absl::Milliseconds(1)), *loop_,
                [this, alive = std::weak_ptr<bool>(alive_), life,
                 attempt = entry.attempt](absl::StatusOr<v1::HandshakeResponse> response) {
                  if (!alive.expired()) OnResponse(life, attempt, std::move(response));
                });
}

Peers::Entry* Peers::Find(const Life& life, uint64_t attempt) {
  auto it = entries_.find(life);
  return it == entries_.end() || it->second.attempt != attempt ? nullptr : &it->second;
}

absl::Status Peers::Check(const Life& life, const v1::HandshakeResponse& response) const {
  const v1::NodeInfo& node = response.node();
  if (node.node_id() != life.first.value() || node.incarnation() != life.second.value()) {
    return absl::UnavailableError(absl::StrCat("the block's owner ", life.first.value(),
                                               " is gone; at its address is ", Describe(node)));
  }
  return CheckCompatible(self_, node);
}

void Peers::OnResponse(const Life& life, uint64_t attempt,
                       absl::StatusOr<v1::HandshakeResponse> response) {
  if (Find(life, attempt) == nullptr) return;
  absl::Status status = response.ok() ? Check(life, *response) : response.status();
  if (!status.ok()) return Finish(life, Annotate(status, "handshake with " + life.first.value()));
  PeerAddress address{
      response->worker_address(),
      {response->region_descriptors().begin(), response->region_descriptors().end()}};
  blocking_loop_->Post([this, alive = std::weak_ptr<bool>(alive_), loop = loop_,
                        transport = transport_, life, attempt, address = std::move(address)] {
    absl::StatusOr<PeerId> peer = transport->Connect(address);
    loop->Post([this, alive, life, attempt, peer = std::move(peer)] {
      if (!alive.expired()) OnConnected(life, attempt, peer);
    });
  });
}

void Peers::OnConnected(const Life& life, uint64_t attempt, absl::StatusOr<PeerId> peer) {
  if (Find(life, attempt) == nullptr) {
    if (peer.ok()) transport_->Disconnect(*peer);
    return;
  }
  if (!peer.ok()) return Finish(life, Annotate(peer.status(), "connect " + life.first.value()));
  Finish(life, peer);
}

void Peers::Finish(const Life& life, absl::StatusOr<PeerId> peer) {
  Entry& entry = entries_.at(life);
  std::vector<Done> waiting = std::move(entry.waiting);
  if (peer.ok()) {
    entry.connected = true;
    entry.peer = *peer;
    entry.waiting.clear();
    entry.stub.reset();
  } else {
    LOG_EVERY_N(WARNING, 20) << peer.status();
    entries_.erase(life);
  }
  for (Done& done : waiting) done(peer);
}

void Peers::Forget(const BlockSource& source) {
  auto it = entries_.find({source.node, source.incarnation});
  if (it == entries_.end() || !it->second.connected) return;
  transport_->Disconnect(it->second.peer);
  entries_.erase(it);
}

}  // namespace tarn::kvstore
