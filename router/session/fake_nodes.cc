#include "router/session/fake_nodes.h"

#include <algorithm>
#include <utility>

#include "common/memory/block_layout.h"
#include "kvstore/wire/convert.h"

namespace tarn::router {

// One stream as its node sees it. The router holds the only handle: when it lets go, all ends.
template <typename Command, typename Events>
class FakeNodes::Peer : public Stream<Command>,
                        public std::enable_shared_from_this<Peer<Command, Events>> {
 public:
  Peer(FakeNodes* nodes, std::string id, StreamHandler<Events> handler)
      : nodes_(nodes), id_(std::move(id)), handler_(std::move(handler)) {}

  void Send(Command command) override {
    After(nodes_->options_.latency, [this, command = std::move(command)] { OnCommand(command); });
  }
  void Close(absl::Status status) override { Break(status); }
  size_t pending_bytes() const override { return 0; }

  // Once it is owned: greets, or breaks if nobody is there.
  void Connect() {
    After(nodes_->options_.latency, [this] {
      if (nodes_->dead_.contains(id_)) return Break(absl::UnavailableError("nobody there"));
      if (handler_.on_open) handler_.on_open();
    });
  }
  void Break(const absl::Status& status) {
    if (std::exchange(closed_, true)) return;
    Forget();
    nodes_->loop_->Post([weak = this->weak_from_this(), status] {
      const auto self = weak.lock();
      if (!self) return;
      const auto on_closed = self->handler_.on_closed;
      self->handler_ = {};
      on_closed(status);
    });
  }
  const std::string& id() const { return id_; }
  virtual size_t held() const = 0;
  virtual void GiveUp() = 0;

 protected:
  absl::Status Admissible(const std::function<absl::Status()>& hook) const {
    return nodes_->leaving_.contains(id_) ? Leaving() : Ask(hook);
  }
  static absl::Status Leaving() { return absl::UnavailableError("leaving"); }
  virtual void OnCommand(const Command& command) = 0;
  virtual void Forget() = 0;

  // Runs `task` unless the stream has ended by then.
  void After(absl::Duration delay, std::function<void()> task) {
    nodes_->loop_->PostAfter(delay, [this, weak = this->weak_from_this(), task = std::move(task)] {
      const auto self = weak.lock();
      if (self && !closed_) task();
    });
  }
  template <typename Event>
  void Reply(Event event) {
    After(nodes_->options_.latency, [this, event = std::move(event)] {
      Events events;
      *events.add_events() = event;
      if (handler_.on_message) handler_.on_message(std::move(events));
    });
  }
  void Violation(const std::string& what) { nodes_->violations_.push_back(id_ + ": " + what); }
  static absl::Status Ask(const std::function<absl::Status()>& hook) {
    return hook ? hook() : absl::OkStatus();
  }
  template <typename Event>
  static Event Failure(uint64_t request, const absl::Status& status) {
    Event event;
    event.set_request_id(request);
    event.mutable_failed()->set_code(static_cast<int32_t>(status.code()));
    event.mutable_failed()->set_message(
        std::string(status.message().data(), status.message().size()));
    return event;
  }

  FakeNodes* const nodes_;

 private:
  const std::string id_;
  StreamHandler<Events> handler_;
  bool closed_ = false;
};

class FakeNodes::PrefillPeer : public Peer<v1::PrefillCommand, v1::PrefillEvents> {
 public:
  using Peer::Peer;
  size_t held() const override { return pins_.size(); }
  void GiveUp() override {
    for (const uint64_t request : std::exchange(pins_, {})) {
      if (!done_.erase(request)) Reply(Failure<v1::PrefillEvent>(request, Leaving()));
    }
  }

 private:
  void Forget() override {
    pins_.clear();
    done_.clear();
  }

  void OnCommand(const v1::PrefillCommand& command) override {
    const uint64_t request = command.request_id();
    if (command.has_release()) return Unpin(request);
    if (const absl::Status no = Admissible({}); !no.ok()) {
      return Reply(Failure<v1::PrefillEvent>(request, no));
    }
    if (!pins_.insert(request).second) Violation("prefill started twice");
    const absl::Duration pinned = absl::Microseconds(command.start().handover_timeout_us());
    nodes_->prefills_.push_back(command.start());
    const std::vector<int32_t> tokens(command.start().tokens().begin(),
                                      command.start().tokens().end());
    After(nodes_->options_.prefill_per_token * static_cast<double>(tokens.size()),
          [this, request, tokens, pinned] { Done(request, tokens, pinned); });
  }

  void Unpin(uint64_t request) {
    pins_.erase(request);
    done_.erase(request);
  }

  void Done(uint64_t request, const std::vector<int32_t>& tokens, absl::Duration pinned) {
    if (!pins_.contains(request)) return;
    if (const absl::Status fault = Ask(nodes_->faults_.prefill); !fault.ok()) {
      pins_.erase(request);
      return Reply(Failure<v1::PrefillEvent>(request, fault));
    }
    v1::PrefillEvent ready;
    ready.set_request_id(request);
    ready.mutable_blocks_ready()->add_blocks()->set_token_count(
        static_cast<uint32_t>(tokens.size()));
    Reply(std::move(ready));
    v1::PrefillEvent done;
    done.set_request_id(request);
    done.mutable_done()->mutable_first_token()->set_token(NextToken(tokens));
    done.mutable_done()->mutable_prompt()->set_computed(static_cast<uint32_t>(tokens.size()));
    Reply(std::move(done));
    done_.insert(request);
    if (nodes_->options_.deadlines) After(pinned, [this, request] { Unpin(request); });
  }

  std::set<uint64_t> pins_, done_;  // done: those that are being handed over
};

class FakeNodes::DecodePeer : public Peer<v1::DecodeCommand, v1::DecodeEvents> {
 public:
  using Peer::Peer;
  size_t held() const override { return seats_.size(); }
  void GiveUp() override {
    for (const auto& [request, seat] : std::exchange(seats_, {})) {
      Reply(Failure<v1::DecodeEvent>(request, Leaving()));
    }
  }

 private:
  struct Seat {
    std::vector<int32_t> tokens;
    std::vector<int32_t> ends;
    uint32_t remaining = 0;
    bool blocks = false, started = false;
  };
  void Forget() override { seats_.clear(); }

  void OnCommand(const v1::DecodeCommand& command) override {
    const uint64_t request = command.request_id();
    if (command.has_admit()) return Admit(request, command.admit());
    const auto it = seats_.find(request);
    if (it == seats_.end()) return;  // failed here meanwhile
    if (command.has_cancel()) {
      seats_.erase(it);
    } else if (command.has_blocks()) {
      it->second.blocks = true;
    } else if (command.has_start()) {
      Begin(request, it->second, command.start().first_token().token());
    }
  }

  void Admit(uint64_t request, const v1::DecodeAdmit& admit) {
    absl::Status fault = Admissible(nodes_->faults_.admit);
    if (seats_.size() >= nodes_->options_.seats) fault = absl::ResourceExhaustedError("no seat");
    if (!fault.ok()) return Reply(Failure<v1::DecodeEvent>(request, fault));
    const Seat seat = {.tokens = {admit.tokens().begin(), admit.tokens().end()},
                       .ends = {admit.end_token_ids().begin(), admit.end_token_ids().end()},
                       .remaining = admit.max_new_tokens()};
    if (!seats_.emplace(request, seat).second) Violation("admitted twice");
    v1::DecodeEvent event;
    event.set_request_id(request);
    event.mutable_admitted();
    Reply(std::move(event));
    if (!nodes_->options_.deadlines || admit.timeout_us() == 0) return;
    After(absl::Microseconds(admit.timeout_us()), [this, request] { Expire(request); });
  }

  void Expire(uint64_t request) {
    if (seats_.erase(request) == 0) return;
    Reply(Failure<v1::DecodeEvent>(request, absl::DeadlineExceededError("too late")));
  }

  void Begin(uint64_t request, Seat& seat, int32_t first) {
    if (!seat.blocks) Violation("started without blocks");
    if (std::exchange(seat.started, true)) Violation("started twice");
    if (first != NextToken(seat.tokens)) Violation("wrong first token");
    seat.tokens.push_back(first);
    --seat.remaining;
    v1::DecodeEvent event;
    event.set_request_id(request);
    event.mutable_handover();
    Reply(std::move(event));
    After(nodes_->options_.step, [this, request] { Step(request); });
  }

  void Step(uint64_t request) {
    const auto it = seats_.find(request);
    if (it == seats_.end()) return;
    if (const absl::Status fault = Ask(nodes_->faults_.decode); !fault.ok()) {
      seats_.erase(it);
      return Reply(Failure<v1::DecodeEvent>(request, fault));
    }
    Seat& seat = it->second;
    const int32_t token = NextToken(seat.tokens);
    seat.tokens.push_back(token);
    --seat.remaining;
    v1::DecodeEvent event;
    event.set_request_id(request);
    event.mutable_tokens()->add_tokens()->set_token(token);
    Reply(event);
    const bool end = std::find(seat.ends.begin(), seat.ends.end(), token) != seat.ends.end();
    if (!end && seat.remaining > 0) {
      return After(nodes_->options_.step, [this, request] { Step(request); });
    }
    seats_.erase(it);
    event.mutable_finished()->set_reason(end ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
    Reply(std::move(event));
  }

  std::map<uint64_t, Seat> seats_;
};

v1::NodeInfo FakeNodes::Add(const std::string& id, v1::Role role, uint64_t incarnation) {
  v1::NodeInfo info;
  info.set_node_id(id);
  info.set_incarnation(incarnation);
  info.set_role(role);
  info.set_rpc_address(id);
  info.mutable_model()->set_name("fake");
  info.mutable_model()->set_fingerprint(7);
  *info.mutable_model()->mutable_layout() =
      kvstore::ToProto(BlockLayout{.layers = 2, .kv_heads = 2, .head_dim = 16, .block_tokens = 16});
  return info;
}

void FakeNodes::Kill(const std::string& id) {
  dead_.insert(id);
  const auto break_all = [&id](auto& peers) {
    for (const auto& weak : peers) {
      const auto peer = weak.lock();
      if (peer && peer->id() == id) peer->Break(absl::UnavailableError("killed"));
    }
  };
  break_all(prefill_peers_);
  break_all(decode_peers_);
}

void FakeNodes::GiveUp(const std::string& id) {
  Leave(id);
  const auto give_up_all = [&id](auto& peers) {
    for (const auto& weak : peers) {
      const auto peer = weak.lock();
      if (peer && peer->id() == id) peer->GiveUp();
    }
  };
  give_up_all(prefill_peers_);
  give_up_all(decode_peers_);
}

size_t FakeNodes::seats() const {
  size_t held = 0;
  for (const auto& weak : decode_peers_) {
    if (const auto peer = weak.lock()) held += peer->held();
  }
  return held;
}

size_t FakeNodes::pins() const {
  size_t held = 0;
  for (const auto& weak : prefill_peers_) {
    if (const auto peer = weak.lock()) held += peer->held();
  }
  return held;
}

int32_t FakeNodes::NextToken(const std::vector<int32_t>& tokens) {
  uint32_t hash = 2166136261u;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
  return static_cast<int32_t>(hash % 1000) + 1;
}

template <typename P>
std::shared_ptr<P> FakeNodes::Connect(std::vector<std::weak_ptr<P>>& peers,
                                      std::shared_ptr<P> peer) {
  ++streams_opened_;
  std::erase_if(peers, [](const auto& weak) { return weak.expired(); });
  peers.push_back(peer);
  peer->Connect();
  return peer;
}

std::shared_ptr<Stream<v1::PrefillCommand>> FakeNodes::OpenPrefill(
    const std::string& address, StreamHandler<v1::PrefillEvents> handler) {
  return Connect(prefill_peers_, std::make_shared<PrefillPeer>(this, address, std::move(handler)));
}

std::shared_ptr<Stream<v1::DecodeCommand>> FakeNodes::OpenDecode(
    const std::string& address, StreamHandler<v1::DecodeEvents> handler) {
  return Connect(decode_peers_, std::make_shared<DecodePeer>(this, address, std::move(handler)));
}

}  // namespace tarn::router
