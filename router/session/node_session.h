#pragma once

// A stream to one node that is opened again when it ends, with growing pauses, as long as the
// object lives. Loop-only.

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"
#include "proto/decode.pb.h"
#include "proto/prefill.pb.h"

namespace tarn::router {

struct ReconnectPauses {
  absl::Duration first = absl::Milliseconds(100);
  absl::Duration longest = absl::Seconds(2);
};

template <typename Command, typename Events>
class NodeSession {
 public:
  using Open = std::function<std::shared_ptr<Stream<Command>>(StreamHandler<Events>)>;
  // on_down follows on_up, and also a try that failed. The session may be destroyed in on_down.
  struct Listener {
    std::function<void()> on_up;
    std::function<void(Events)> on_events;
    std::function<void(const absl::Status&)> on_down;
  };

  // Opens at once.
  NodeSession(EventLoop* loop, const ReconnectPauses& pauses, Open open, Listener listener)
      : loop_(loop), pauses_(pauses), open_(std::move(open)), listener_(std::move(listener)) {
    Connect();
  }
  ~NodeSession() { loop_->CancelTimer(timer_); }
  NodeSession(const NodeSession&) = delete;
  NodeSession& operator=(const NodeSession&) = delete;

  bool up() const { return up_; }

  // False: the session is down, the command is lost.
  bool Send(Command command) {
    if (!up_) return false;
    stream_->Send(std::move(command));
    return true;
  }

 private:
  void Connect() {
    StreamHandler<Events> handler;
    handler.on_open = [this] {
      up_ = true;
      pause_ = absl::ZeroDuration();
      listener_.on_up();
    };
    handler.on_message = [this](Events events) { listener_.on_events(std::move(events)); };
    handler.on_closed = [this](const absl::Status& status) { Down(status); };
    stream_ = open_(std::move(handler));
  }

  void Down(const absl::Status& status) {
    up_ = false;
    stream_.reset();
    pause_ = std::clamp(pause_ * 2, pauses_.first, pauses_.longest);
    timer_ = loop_->PostAfter(pause_, [this] { Connect(); });
    // A copy, for it may destroy this object.
    const auto on_down = listener_.on_down;
    on_down(status);
  }

  EventLoop* const loop_;
  const ReconnectPauses pauses_;
  const Open open_;
  const Listener listener_;
  std::shared_ptr<Stream<Command>> stream_;
  bool up_ = false;
  absl::Duration pause_;
  TimerId timer_ = 0;
};

using PrefillSession = NodeSession<v1::PrefillCommand, v1::PrefillEvents>;
using DecodeSession = NodeSession<v1::DecodeCommand, v1::DecodeEvents>;

}  // namespace tarn::router
