#pragma once

// Streams as messages on an EventLoop. gRPC's threads only queue and post; all handlers run on
// the owner's loop, one after another, in the order in which things happened.
//
// Ownership: the owner holds a handle (shared_ptr). The gRPC reactor behind it owns itself until
// gRPC is done with it. The last handle must be dropped on the loop, at any moment, also inside a
// handler: from then on no handler runs, and a stream that is still open is cancelled.
//
// Bounds: what is sent and not yet taken by gRPC (StreamOptions). Over a limit the stream closes
// with RESOURCE_EXHAUSTED on this side; the peer sees that status, or CANCELLED if it does not
// even read within close_grace. Reading stops while max_unhandled_messages wait on the loop.

#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tarn {

struct StreamOptions {
  size_t max_queued_messages = 4096;
  size_t max_queued_bytes = 64 << 20;
  size_t max_unhandled_messages = 1024;
  // Client: the server's first sign of life must come within this time.
  absl::Duration connect_timeout = absl::Seconds(5);
  // A closing stream whose peer does not take the rest is cancelled after this time.
  absl::Duration close_grace = absl::Seconds(5);
};

// What the owner is told, on its loop. Any member may be empty.
template <typename In>
struct StreamHandler {
  // Client: the server has answered. Servers hear of a stream by their OnOpen instead.
  std::function<void()> on_open;
  std::function<void(In)> on_message;
  // Server: the client has said its last word and still listens. Empty: Close(OK).
  std::function<void()> on_half_close;
  // Exactly once, and the last call: the stream's final status.
  std::function<void(absl::Status)> on_closed;
};

// The sending half of a stream. Methods are thread-safe and do not block.
template <typename Out>
class Stream {
 public:
  virtual ~Stream() = default;

  // Queues a message. Silently dropped when the stream is closing: on_closed tells.
  virtual void Send(Out message) = 0;

  // Ends the stream after what is queued; only the first call counts.
  // Server: the call finishes with `status`. Client: OK half-closes and leaves the last word to
  // the server; any other status cancels at once, and on_closed reports it.
  virtual void Close(absl::Status status) = 0;

  // Bytes queued and not yet taken by gRPC.
  virtual size_t pending_bytes() const = 0;
};

}  // namespace tarn
