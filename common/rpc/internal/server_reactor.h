#pragma once

// The gRPC reactors behind server_stream.h.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "common/rpc/internal/outbox.h"
#include "common/rpc/internal/stream_core.h"
#include "common/rpc/status.h"

namespace tarn::internal {

// Writes what is queued, then finishes exactly once. `Reactor` is one of gRPC's server reactors.
//
// gRPC's rule: no operation may start after Finish; OnDone comes when Finish and all operations
// are over. TryCancel only makes the running operations fail.
template <typename Reactor, typename In, typename Out>
class ServerCore : public Reactor, public StreamCore<In> {
 public:
  using OnOpen = std::function<StreamHandler<In>(std::shared_ptr<Stream<Out>>)>;

  ServerCore(grpc::CallbackServerContext* context, EventLoop& loop, const StreamOptions& options)
      : StreamCore<In>(loop, options), context_(context), outbox_(options) {}

  void Send(Out message) {
    MutexLock lock(mutex_);
    if (closing_.has_value()) return;
    if (absl::Status full = outbox_.Push(std::move(message)); !full.ok()) {
      outbox_.DropUnsent();
      BeginClose(std::move(full));
    }
    Pump();
  }

  void Close(absl::Status status) {
    MutexLock lock(mutex_);
    if (closing_.has_value()) return;
    BeginClose(std::move(status));
    Pump();
  }

  size_t pending_bytes() {
    MutexLock lock(mutex_);
    return outbox_.bytes();
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(mutex_);
    outbox_.Written();
    if (!ok) PeerGone();
    Pump();
  }

  void OnCancel() override {
    MutexLock lock(mutex_);
    cancelled_ = true;
    PeerGone();
    Pump();
  }

  void OnDone() override {
    const std::shared_ptr<StreamCore<In>> last = std::move(this->self_);
    MutexLock lock(mutex_);
    absl::Status status = closing_.value_or(absl::OkStatus());
    if (cancelled_ && status.ok()) status = Gone();
    this->PostClosed(std::move(status));
  }

 protected:
  using StreamCore<In>::mutex_;

  void Open(OnOpen on_open) {
    auto self = std::static_pointer_cast<ServerCore>(this->shared_from_this());
    this->self_ = self;
    this->StartSendInitialMetadata();
    this->loop_.Post([self, on_open = std::move(on_open)] {
      auto handle = std::make_shared<StreamHandle<ServerCore, Out>>(self);
      auto handler = std::make_shared<StreamHandler<In>>(on_open(handle));
      // Not if the owner has dropped the handle already: nothing may be called then.
      if (handle.use_count() > 1) self->handler_ = std::move(handler);
    });
  }

  void Abandon() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closing_.has_value()) return;
    closing_ = absl::CancelledError("the server has dropped the stream");
    outbox_.DropUnsent();
    if (outbox_.writing()) context_->TryCancel();
    Pump();
  }

  bool finished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return finished_; }
  bool closing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closing_.has_value(); }

 private:
  static absl::Status Gone() { return absl::CancelledError("the client is gone"); }

  void PeerGone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_.has_value()) closing_ = Gone();
    outbox_.DropUnsent();
  }

  void BeginClose(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    closing_ = std::move(status);
    std::weak_ptr<StreamCore<In>> weak = this->shared_from_this();
    this->loop_.PostAfter(this->options_.close_grace, [weak] {
      if (auto self = weak.lock()) static_cast<ServerCore&>(*self).GraceOver();
    });
  }

  void GraceOver() {
    MutexLock lock(mutex_);
    if (!this->done_) context_->TryCancel();
  }

  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    if (const Out* next = outbox_.StartNext()) {
      this->StartWrite(next);
    } else if (closing_.has_value() && !outbox_.writing()) {
      finished_ = true;
      AddRetryAfter(*closing_, *context_);
      this->Finish(ToGrpcStatus(*closing_));
    }
  }

  grpc::CallbackServerContext* const context_;  // until OnDone
  Outbox<Out> outbox_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);  // what to finish with
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

template <typename In, typename Out>
class ServerBidi : public ServerCore<grpc::ServerBidiReactor<In, Out>, In, Out> {
  using Core = ServerCore<grpc::ServerBidiReactor<In, Out>, In, Out>;

 public:
  using Core::Core;

  static ServerBidi* Start(grpc::CallbackServerContext* context, EventLoop& loop,
                           const StreamOptions& options, typename Core::OnOpen on_open) {
    auto reactor = std::make_shared<ServerBidi>(context, loop, options);
    // First: the owner may finish the call as soon as it is open. Until we return gRPC only notes
    // what is asked of it.
    reactor->StartRead(&reactor->incoming_);
    reactor->Open(std::move(on_open));
    return reactor.get();
  }

  void OnReadDone(bool ok) override {
    MutexLock lock(this->mutex_);
    if (ok) {
      this->PostMessage(std::move(incoming_));
      return;
    }
    // After the messages before it: their answers still go out.
    std::weak_ptr<StreamCore<In>> weak = this->shared_from_this();
    this->PostToHandler([weak](StreamHandler<In>& handler) {
      if (handler.on_half_close) {
        handler.on_half_close();
      } else if (auto self = weak.lock()) {
        static_cast<ServerBidi&>(*self).Close(absl::OkStatus());
      }
    });
  }

 protected:
  void ReadNext() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(this->mutex_) {
    if (this->finished()) return;
    incoming_.Clear();
    this->StartRead(&incoming_);
  }

 private:
  In incoming_;  // gRPC's while a read is under way
};

template <typename Out>
class ServerWriter : public ServerCore<grpc::ServerWriteReactor<Out>, Out, Out> {
  using Core = ServerCore<grpc::ServerWriteReactor<Out>, Out, Out>;

 public:
  using Core::Core;

  static ServerWriter* Start(grpc::CallbackServerContext* context, EventLoop& loop,
                             const StreamOptions& options, typename Core::OnOpen on_open) {
    auto reactor = std::make_shared<ServerWriter>(context, loop, options);
    reactor->Open(std::move(on_open));
    return reactor.get();
  }

 protected:
  void ReadNext() override {}
};

}  // namespace tarn::internal
