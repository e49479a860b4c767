#pragma once

// NodeStreams over others (fake_nodes.h) that behave as networks do, and worse: messages come late,
// events come twice, either end of a broken stream learns of it long after the other, single
// messages vanish. And on purpose: faults of router or nodes that a search must find (Planted).
//
// Within one direction of a stream the order is kept, but for what comes twice. Loop-only. All
// randomness is the caller's, so that a seed replays a run.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/runtime/event_loop.h"
#include "common/runtime/random.h"
#include "router/session/active_request.h"
#include "router/session/node_streams.h"

namespace tarn::router {

enum class Planted {
  kNothing,
  kSwallowRelease,   // a command that lets go of a pin is never sent
  kSwallowCancel,    // the same of a seat
  kReplayTokens,     // a message with tokens comes twice
  kStaleLegPasses,   // what an abandoned leg still says is taken for the present one's
  kDeathGoesUntold,  // a stream ends, and the router never hears of it
};

struct LinkFaults {
  absl::Duration max_delay;   // of a message, beyond what it takes anyway
  absl::Duration max_untold;  // until an end of a broken stream knows
  double repeat = 0;          // share of events (but tokens) that come again, up to max_delay later
  // Share of messages that vanish. Not those with tokens: inside a stream gRPC loses nothing, and
  // the protocol relies on it there.
  double lose = 0;
  Planted planted = Planted::kNothing;
};

class FaultyStreams : public NodeStreams {
 public:
  // All outlive it and its streams.
  FaultyStreams(NodeStreams* inner, EventLoop* loop, Random* random)
      : inner_(inner), loop_(loop), random_(random) {}

  LinkFaults& faults() { return faults_; }
  // How often the planted fault has struck.
  int strikes() const { return strikes_; }

  std::shared_ptr<Stream<v1::PrefillCommand>> OpenPrefill(
      const std::string& address, StreamHandler<v1::PrefillEvents> handler) override {
    return Wrap<v1::PrefillCommand, v1::PrefillEvents>(std::move(handler), [&](auto inner) {
      return inner_->OpenPrefill(address, std::move(inner));
    });
  }
  std::shared_ptr<Stream<v1::DecodeCommand>> OpenDecode(
      const std::string& address, StreamHandler<v1::DecodeEvents> handler) override {
    return Wrap<v1::DecodeCommand, v1::DecodeEvents>(std::move(handler), [&](auto inner) {
      return inner_->OpenDecode(address, std::move(inner));
    });
  }

 private:
  // What lies between the two ends; lives until both know that it is over.
  template <typename Command, typename Events>
  struct Link {
    std::shared_ptr<Stream<Command>> node;  // the node's end
    StreamHandler<Events> router;           // the router's; empty once it has let go
    absl::Time commands_until, events_until;
  };

  template <typename Command, typename Events>
  class RouterEnd : public Stream<Command> {
   public:
    RouterEnd(FaultyStreams* owner, std::shared_ptr<Link<Command, Events>> link)
        : owner_(owner), link_(std::move(link)) {}
    // The node's end learns of it later.
    ~RouterEnd() override {
      link_->router = {};
      owner_->loop_->PostAfter(owner_->UpTo(owner_->faults_.max_untold),
                               [link = link_] { link->node.reset(); });
    }
    void Send(Command command) override {
      owner_->NoteLeg(command);
      if (owner_->Swallows(command) || owner_->Loses(command)) return;
      owner_->InOrder(link_->commands_until, [link = link_, command = std::move(command)] {
        if (link->node) link->node->Send(command);
      });
    }
    void Close(absl::Status status) override { link_->node->Close(std::move(status)); }
    size_t pending_bytes() const override { return 0; }

   private:
    FaultyStreams* const owner_;
    const std::shared_ptr<Link<Command, Events>> link_;
  };

  template <typename Command, typename Events, typename OpenInner>
  std::shared_ptr<Stream<Command>> Wrap(StreamHandler<Events> handler, const OpenInner& open) {
    const auto link = std::make_shared<Link<Command, Events>>();
    link->router = std::move(handler);
    // The inner stream's handler must not own the link, which owns the stream.
    const std::weak_ptr<Link<Command, Events>> weak = link;
    StreamHandler<Events> inner;
    inner.on_open = [this, weak] {
      Deliver<Command, Events>(weak, [](auto& router) { router.on_open(); });
    };
    inner.on_message = [this, weak](Events events) { OnEvents<Command>(weak, std::move(events)); };
    inner.on_closed = [this, weak](const absl::Status& status) {
      if (Strikes(Planted::kDeathGoesUntold)) return;
      // All that was on its way is gone; and what it kept waiting does not matter any more.
      loop_->PostAfter(UpTo(faults_.max_untold), [weak, status] {
        if (const auto link = weak.lock(); link && link->router.on_closed) {
          std::exchange(link->router, {}).on_closed(status);
        }
      });
    };
    link->node = open(std::move(inner));
    return std::make_shared<RouterEnd<Command, Events>>(this, link);
  }

  template <typename Command, typename Events>
  void OnEvents(const std::weak_ptr<Link<Command, Events>>& weak, Events events) {
    if (Loses(events)) return;
    const bool tokens = HasTokens(events);
    const auto deliver = [this, weak](Events message) {
      Deliver<Command, Events>(weak, [this, message = std::move(message)](auto& router) {
        Events heard = message;
        PassStaleLegs(heard);
        router.on_message(std::move(heard));
      });
    };
    const bool again = tokens ? Strikes(Planted::kReplayTokens) : Chance(faults_.repeat);
    deliver(events);
    if (again) {
      loop_->PostAfter(UpTo(faults_.max_delay), [deliver, events] { deliver(events); });
    }
  }

  template <typename Command, typename Events>
  void Deliver(const std::weak_ptr<Link<Command, Events>>& weak,
               std::function<void(StreamHandler<Events>&)> tell) {
    const auto link = weak.lock();
    if (!link) return;
    InOrder(link->events_until, [weak, tell = std::move(tell)] {
      const auto still = weak.lock();
      if (!still || !still->router.on_message) return;
      // A copy, for it may drop the stream.
      StreamHandler<Events> router = still->router;
      tell(router);
    });
  }

  // Runs `task` after a delay, not before what was given to the same direction earlier.
  void InOrder(absl::Time& until, std::function<void()> task) {
    until = std::max(until, loop_->Now() + UpTo(faults_.max_delay));
    loop_->PostAt(until, std::move(task));
  }

  absl::Duration UpTo(absl::Duration most) {
    const int64_t us = absl::ToInt64Microseconds(most);
    // Mostly short: a long one is a matter of its own.
    return absl::Microseconds(random_->Chance(0.8) ? random_->UniformInt(0, us / 20)
                                                   : random_->UniformInt(0, us));
  }
  bool Chance(double share) { return share > 0 && random_->Chance(share); }

  // Planted faults are rare, as real ones are.
  bool Strikes(Planted fault) {
    const bool strikes = faults_.planted == fault && random_->Chance(0.2);
    strikes_ += strikes ? 1 : 0;
    return strikes;
  }
  bool Swallows(const v1::PrefillCommand& command) {
    return command.has_release() && Strikes(Planted::kSwallowRelease);
  }
  bool Swallows(const v1::DecodeCommand& command) {
    return command.has_cancel() && Strikes(Planted::kSwallowCancel);
  }
  template <typename Message>
  bool Loses(const Message& message) {
    return !HasTokens(message) && Chance(faults_.lose);
  }
  template <typename Message>
  static bool HasTokens(const Message&) {
    return false;
  }
  static bool HasTokens(const v1::DecodeEvents& events) {
    return std::any_of(events.events().begin(), events.events().end(),
                       [](const v1::DecodeEvent& event) { return event.has_tokens(); });
  }

  // The present legs, for kStaleLegPasses.
  void NoteLeg(const v1::PrefillCommand& command) {
    if (command.has_start()) pins_[RequestOf(command.request_id())] = command.request_id();
  }
  void NoteLeg(const v1::DecodeCommand& command) {
    if (command.has_admit()) seats_[RequestOf(command.request_id())] = command.request_id();
  }
  template <typename Events>
  void PassStaleLegs(Events& events) {
    if (faults_.planted != Planted::kStaleLegPasses) return;
    auto& legs = LegsOf(events);
    for (auto& event : *events.mutable_events()) {
      const auto present = legs.find(RequestOf(event.request_id()));
      if (present == legs.end() || present->second == event.request_id()) continue;
      ++strikes_;
      event.set_request_id(present->second);
    }
  }
  std::map<RequestId, uint64_t>& LegsOf(const v1::PrefillEvents&) { return pins_; }
  std::map<RequestId, uint64_t>& LegsOf(const v1::DecodeEvents&) { return seats_; }

  NodeStreams* const inner_;
  EventLoop* const loop_;
  Random* const random_;
  LinkFaults faults_;
  int strikes_ = 0;
  std::map<RequestId, uint64_t> pins_, seats_;
};

}  // namespace tarn::router
