#pragma once

// What both sides of a stream share: the way from gRPC's threads to the owner's handlers.

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/rpc/stream.h"
#include "common/runtime/event_loop.h"

namespace tarn::internal {

// Owns itself (`self_`) from Start until gRPC's OnDone; the handle and posted tasks share it.
// Once the handle is gone, gRPC's threads no longer touch the loop, which may then be destroyed.
template <typename In>
class StreamCore : public std::enable_shared_from_this<StreamCore<In>> {
 public:
  StreamCore(EventLoop& loop, const StreamOptions& options) : loop_(loop), options_(options) {}
  virtual ~StreamCore() = default;
  StreamCore(const StreamCore&) = delete;
  StreamCore& operator=(const StreamCore&) = delete;

  // The last handle has been dropped.
  void Detach() {
    // Destroyed last: what handlers hold may come back here.
    const std::shared_ptr<StreamHandler<In>> dropped = std::move(handler_);
    const std::shared_ptr<StreamCore> alive = this->shared_from_this();
    MutexLock lock(mutex_);
    detached_ = true;
    Abandon();
  }

 protected:
  // Asks gRPC for a message, if messages may still come.
  virtual void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // Ends the stream at once, unless it is ending already.
  virtual void Abandon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;

  // Runs `call(handler)` on the loop unless the owner has left by then.
  template <typename Call>
  void PostToHandler(Call call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (detached_) return;
    loop_.Post([self = this->shared_from_this(), call = std::move(call)]() mutable {
      // A copy: the handler may drop the handle while it runs.
      if (const std::shared_ptr<StreamHandler<In>> handler = self->handler_) call(*handler);
    });
  }

  void PostMessage(In message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (detached_) return;
    ++unhandled_;
    loop_.Post([self = this->shared_from_this(), message = std::move(message)]() mutable {
      if (const std::shared_ptr<StreamHandler<In>> handler = self->handler_) {
        if (handler->on_message) handler->on_message(std::move(message));
      }
      self->MessageHandled();
    });
    if (unhandled_ < options_.max_unhandled_messages) {
      ReadNext();
    } else {
      paused_ = true;
    }
  }

  void PostClosed(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    done_ = true;
    if (detached_) return;
    loop_.Post([self = this->shared_from_this(), status = std::move(status)] {
      const std::shared_ptr<StreamHandler<In>> handler = std::move(self->handler_);
      if (handler && handler->on_closed) handler->on_closed(status);
    });
  }

  EventLoop& loop_;
  const StreamOptions options_;
  std::shared_ptr<StreamHandler<In>> handler_;  // loop only, but for Start
  std::shared_ptr<StreamCore> self_;            // set by Start, reset by OnDone
  Mutex mutex_;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;  // OnDone has run: gRPC's context is gone

 private:
  void MessageHandled() {
    MutexLock lock(mutex_);
    --unhandled_;
    if (!paused_ || detached_) return;
    paused_ = false;
    ReadNext();
  }

  size_t unhandled_ ABSL_GUARDED_BY(mutex_) = 0;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
};

// What the owner holds.
template <typename Core, typename Out>
class StreamHandle : public Stream<Out> {
 public:
  explicit StreamHandle(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  ~StreamHandle() override { core_->Detach(); }

  void Send(Out message) override { core_->Send(std::move(message)); }
  void Close(absl::Status status) override { core_->Close(std::move(status)); }
  size_t pending_bytes() const override { return core_->pending_bytes(); }

 private:
  const std::shared_ptr<Core> core_;
};

}  // namespace tarn::internal
