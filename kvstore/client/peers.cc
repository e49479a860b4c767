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
namespace {

constexpr absl::Duration kRememberFailure = absl::Seconds(1);

}  // namespace

Peers::Peers(EventLoop* loop, const std::vector<EventLoop*>& connect_loops, Transport* transport)
    : loop_(loop), transport_(transport), stage_calls_(loop) {
  CHECK(!connect_loops.empty());
  for (EventLoop* connect_loop : connect_loops) connectors_.push_back({connect_loop, 0});
}

Peers::~Peers() {
  for (auto& [life, entry] : entries_) loop_->CancelTimer(entry.timer);
}

PeersStats Peers::Stats() const {
  PeersStats stats = counters_;
  stats.connected = std::count_if(entries_.begin(), entries_.end(),
                                  [](const auto& entry) { return entry.second.connected; });
  stats.stagings = stage_calls_.in_flight();
  return stats;
}

void Peers::Resolve(const BlockSource& source, absl::Time deadline, Done done) {
  if (self_.node_id().empty()) return done(absl::UnavailableError("this node is still starting"));
  Life life{source.node, source.incarnation};
  if (const Failure* failure = RecentFailure(life)) {
    ++counters_.skips;
    return done(failure->status);
  }
  Entry& entry = entries_[life];
  if (entry.connected) return done(entry.peer);
  entry.waiting.push_back(std::move(done));
  if (entry.attempt != 0) return;
  entry.attempt = ++last_attempt_;
  Handshake(life, entry, source.rpc_address, deadline);
}

const Peers::Failure* Peers::RecentFailure(const Life& life) const {
  auto it = failures_.find(life);
  return it == failures_.end() || it->second.forget_at <= loop_->Now() ? nullptr : &it->second;
}

void Peers::Remember(const Life& life, const absl::Status& failure) {
  absl::Time now = loop_->Now();
  std::erase_if(failures_, [now](const auto& old) { return old.second.forget_at <= now; });
  failures_[life] = {failure, now + kRememberFailure};
  ++counters_.failures;
}

void Peers::Handshake(const Life& life, Entry& entry, const std::string& address,
                      absl::Time deadline) {
  uint64_t attempt = entry.attempt;
  entry.timer = loop_->PostAt(deadline, [this, life, attempt] { OnDeadline(life, attempt); });
  v1::HandshakeRequest request;
  *request.mutable_caller() = self_;
  entry.stub = v1::Pool::NewStub(MakeChannel(address));
  ++counters_.handshakes;
  entry.cancel_call =
      CallUnary(entry.stub->async(), &v1::Pool::StubInterface::async_interface::Handshake, request,
                std::max(deadline - loop_->Now(), absl::Milliseconds(1)), *loop_,
                [this, alive = std::weak_ptr<bool>(alive_), life,
                 attempt](absl::StatusOr<v1::HandshakeResponse> response) {
                  if (alive.expired()) return;
                  --counters_.handshakes;
                  OnResponse(life, attempt, std::move(response));
                });
}

void Peers::OnDeadline(const Life& life, uint64_t attempt) {
  Entry* entry = Find(life, attempt);
  if (entry == nullptr) return;
  entry->cancel_call();
  Finish(life, absl::UnavailableError("connect " + life.first.value() + ": no answer in time"));
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
  Connect(life, attempt, std::move(address));
}

void Peers::Connect(const Life& life, uint64_t attempt, PeerAddress address) {
  auto least = [](const Connector& a, const Connector& b) { return a.pending < b.pending; };
  auto connector = std::min_element(connectors_.begin(), connectors_.end(), least);
  ++connector->pending;
  size_t index = connector - connectors_.begin();
  connector->loop->Post([this, alive = std::weak_ptr<bool>(alive_), loop = loop_,
                         transport = transport_, life, attempt, index,
                         address = std::move(address)] {
    absl::StatusOr<PeerId> peer = transport->Connect(address);
    loop->Post([this, alive, life, attempt, index, peer = std::move(peer)] {
      if (alive.expired()) return;
      --connectors_[index].pending;
      OnConnected(life, attempt, peer);
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
  loop_->CancelTimer(std::exchange(entry.timer, 0));
  if (peer.ok()) {
    entry.connected = true;
    entry.peer = *peer;
    entry.waiting.clear();
    entry.stub.reset();
  } else {
    LOG_EVERY_N(WARNING, 20) << peer.status();
    Remember(life, peer.status());
    entries_.erase(life);
  }
  for (Done& done : waiting) done(peer);
}

// The handshake has found this life of the node at the address. Should another one be there by now,
// then what it stages does not verify against the old life's memory.
void Peers::Stage(const BlockSource& source, const BlockKey& key, absl::Time deadline,
                  StageDone done) {
  stage_calls_.Stage(source.rpc_address, key, deadline, std::move(done));
}

void Peers::Forget(const BlockSource& source) {
  auto it = entries_.find({source.node, source.incarnation});
  if (it == entries_.end() || !it->second.connected) return;
  transport_->Disconnect(it->second.peer);
  entries_.erase(it);
}

}  // namespace tarn::kvstore
