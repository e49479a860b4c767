#pragma once

// The gRPC reactors behind client_stream.h.

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <string>
#include <utility>

#include "common/rpc/internal/call_context.h"
#include "common/rpc/internal/outbox.h"
#include "common/rpc/internal/stream_core.h"
#include "common/rpc/release.h"
#include "common/rpc/status.h"

namespace tarn::internal {

// Reads until the server ends the call. `Reactor` is one of gRPC's client reactors.
//
// gRPC's rule: an operation may start outside gRPC's own callbacks only under a hold, and OnDone
// waits for it. `stopped_` says that the hold is gone and that nothing may start any more.
template <typename Reactor, typename In>
class ClientCore : public Reactor, public StreamCore<In> {
 public:
  using StreamCore<In>::StreamCore;

  void Cancel(absl::Status status) {
    MutexLock lock(mutex_);
    Fail(std::move(status));
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (!ok) return;
    MutexLock lock(mutex_);
    Opened();
  }

  void OnReadDone(bool ok) override {
    MutexLock lock(mutex_);
    if (ok) {
      // gRPC has several threads: a message may overtake the metadata that came before it.
      Opened();
      this->PostMessage(std::move(incoming_));
    } else {
      Stop();
    }
  }

  void OnDone(const grpc::Status& status) override {
    std::shared_ptr<StreamCore<In>> last;
    {
      MutexLock lock(mutex_);
      last = std::move(this->self_);
      Stop();
      this->PostClosed(failure_.ok() ? FromGrpcStatus(status, context_) : failure_);
    }
    ReleaseOffGrpcThreads(std::move(last));
  }

 protected:
  using StreamCore<In>::mutex_;

  // `call(context, reactor)` binds the reactor to the method.
  template <typename Call>
  void Open(Call call, StreamHandler<In> handler) {
    std::shared_ptr<StreamCore<In>> self = this->shared_from_this();
    {
      // gRPC orders this before its callbacks, but ThreadSanitizer does not see that.
      MutexLock lock(mutex_);
      this->self_ = self;
      this->handler_ = std::make_shared<StreamHandler<In>>(std::move(handler));
    }
    call(&context_, static_cast<Reactor*>(this));
    this->AddHold();
    this->StartRead(&incoming_);
    this->StartCall();
    this->loop_.PostAfter(this->options_.connect_timeout,
                          [weak = std::weak_ptr<StreamCore<In>>(self)] {
                            if (auto core = weak.lock()) {
                              static_cast<ClientCore&>(*core).ConnectTimeout();
                            }
                          });
  }

  void ReadNext() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopped_) return;
    incoming_.Clear();
    this->StartRead(&incoming_);
  }

  void Abandon() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Fail(absl::CancelledError("the client has dropped the stream"));
  }

  // What is queued need not be sent any more.
  virtual void DropUnsent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  void Fail(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (this->done_ || !failure_.ok()) return;
    failure_ = std::move(status);
    context_.TryCancel();
    Stop();
  }

  bool stopped() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_; }

 private:
  void Opened() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(opened_, true)) return;
    this->PostToHandler([](StreamHandler<In>& handler) {
      if (handler.on_open) handler.on_open();
    });
  }

  void Stop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopped_) return;
    stopped_ = true;
    DropUnsent();
    this->RemoveHold();
  }

  void ConnectTimeout() {
    MutexLock lock(mutex_);
    if (opened_) return;
    Fail(absl::UnavailableError("no answer from " + context_.peer() + " within " +
                                absl::FormatDuration(this->options_.connect_timeout)));
  }

  CallContext context_;
  In incoming_;  // gRPC's while a read is under way
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // ours; wins over what gRPC says
};

template <typename Out, typename In>
class ClientBidi : public ClientCore<grpc::ClientBidiReactor<Out, In>, In> {
  using Core = ClientCore<grpc::ClientBidiReactor<Out, In>, In>;

 public:
  ClientBidi(EventLoop& loop, const StreamOptions& options)
      : Core(loop, options), outbox_(options) {}

  template <typename Call>
  static std::shared_ptr<Stream<Out>> Start(Call call, EventLoop& loop,
                                            const StreamOptions& options,
                                            StreamHandler<In> handler) {
    auto reactor = std::make_shared<ClientBidi>(loop, options);
    auto handle = std::make_shared<StreamHandle<ClientBidi, Out>>(reactor);
    reactor->Open(std::move(call), std::move(handler));
    return handle;
  }

  void Send(Out message) {
    MutexLock lock(mutex_);
    if (half_closed_ || this->stopped()) return;
    if (absl::Status full = outbox_.Push(std::move(message)); !full.ok()) {
      this->Fail(std::move(full));
    }
    Pump();
  }

  void Close(absl::Status status) {
    MutexLock lock(mutex_);
    if (!status.ok()) {
      this->Fail(std::move(status));
    } else if (!half_closed_) {
      half_closed_ = true;
      Pump();
    }
  }

  size_t pending_bytes() {
    MutexLock lock(mutex_);
    return outbox_.bytes();
  }

  // A failed write means that the call is over; OnReadDone and OnDone say why.
  void OnWriteDone(bool ok) override {
    MutexLock lock(mutex_);
    outbox_.Written();
    if (!ok) outbox_.DropUnsent();
    Pump();
  }

 protected:
  using Core::mutex_;

  void DropUnsent() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { outbox_.DropUnsent(); }

 private:
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (this->stopped()) return;
    if (const Out* next = outbox_.StartNext()) {
      this->StartWrite(next);
    } else if (half_closed_ && outbox_.empty() && !writes_done_) {
      writes_done_ = true;
      this->StartWritesDone();
    }
  }

  Outbox<Out> outbox_ ABSL_GUARDED_BY(mutex_);
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool writes_done_ ABSL_GUARDED_BY(mutex_) = false;
};

template <typename In>
class ClientReader : public ClientCore<grpc::ClientReadReactor<In>, In> {
  using Core = ClientCore<grpc::ClientReadReactor<In>, In>;

 public:
  using Core::Core;

  template <typename Call>
  static std::shared_ptr<ClientReader> Start(Call call, EventLoop& loop,
                                             const StreamOptions& options,
                                             StreamHandler<In> handler) {
    auto reactor = std::make_shared<ClientReader>(loop, options);
    reactor->Open(std::move(call), std::move(handler));
    return reactor;
  }
};

}  // namespace tarn::internal
