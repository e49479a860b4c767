#pragma once

// A stream's sending half without gRPC: messages arrive on the loop, in order, one task each.

#include <functional>
#include <memory>
#include <utility>

#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"

namespace tarn::test {

// Connects a node's handler with a router's callback. Loop-only.
template <typename Command, typename Events>
class FakeConnection {
 public:
  // `open`: the node's acceptor; `on_events`: what the router does with a message.
  template <typename Open>
  FakeConnection(EventLoop* loop, Open open, std::function<void(const Events&)> on_events)
      : loop_(loop), state_(std::make_shared<State>()) {
    state_->on_events = std::move(on_events);
    state_->handler = open(std::make_shared<Sender>(loop, state_));
  }
  ~FakeConnection() { *state_ = State(); }

  void Send(Command command) {
    loop_->Post([state = state_, command = std::move(command)] {
      if (state->handler.on_message) state->handler.on_message(command);
    });
  }
  // The router goes away, or is too slow.
  void Close(const absl::Status& status) {
    loop_->Post([state = state_, status] {
      const State closed = std::exchange(*state, {});
      if (closed.handler.on_closed) closed.handler.on_closed(status);
    });
  }
  int messages() const { return state_->messages; }

 private:
  struct State {
    StreamHandler<Command> handler;
    std::function<void(const Events&)> on_events;
    int messages = 0;
  };
  class Sender : public Stream<Events> {
   public:
    Sender(EventLoop* loop, std::shared_ptr<State> state) : loop_(loop), state_(std::move(state)) {}
    void Send(Events message) override {
      loop_->Post([state = state_, message = std::move(message)] {
        ++state->messages;
        if (state->on_events) state->on_events(message);
      });
    }
    void Close(absl::Status) override {}
    size_t pending_bytes() const override { return 0; }

   private:
    EventLoop* const loop_;
    const std::shared_ptr<State> state_;
  };

  EventLoop* const loop_;
  const std::shared_ptr<State> state_;
};

}  // namespace tarn::test
