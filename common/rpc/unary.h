#pragma once

// Unary calls as callbacks on an EventLoop.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/internal/call_context.h"
#include "common/rpc/release.h"
#include "common/rpc/status.h"
#include "common/runtime/event_loop.h"

namespace tarn {

namespace internal {

template <typename Response>
struct UnaryCall {
  CallContext context;
  Response response;
};

// Finishes one call on the server's side, once.
template <typename Response>
class UnaryAnswer {
 public:
  UnaryAnswer(grpc::CallbackServerContext* context, grpc::ServerUnaryReactor* reactor,
              Response* response)
      : context_(context), reactor_(reactor), response_(response) {}
  ~UnaryAnswer() { Finish(absl::UnavailableError("the server has dropped the call")); }

  void Finish(absl::StatusOr<Response> answer) {
    if (finished_.exchange(true)) return;
    if (answer.ok()) *response_ = std::move(*answer);
    AddRetryAfter(answer.status(), *context_);
    reactor_->Finish(ToGrpcStatus(answer.status()));
  }

 private:
  grpc::CallbackServerContext* const context_;
  grpc::ServerUnaryReactor* const reactor_;
  Response* const response_;
  std::atomic<bool> finished_{false};
};

}  // namespace internal

// Asks for an early end of a call; `done` still runs, with CANCELLED or the outcome.
// Thread-safe; may be kept or dropped as one likes.
using CancelCall = std::function<void()>;

// Calls and returns at once. `done` runs exactly once, on the loop, later than this call:
// the response, or DEADLINE_EXCEEDED, UNAVAILABLE, or what the server said, with RetryAfter.
//   CallUnary(stub->async(), &Echo::StubInterface::async_interface::Ping, request,
//             absl::Seconds(1), loop, [](absl::StatusOr<PingResponse> response) { ... });
template <typename Async, typename Base, typename Request, typename Response>
CancelCall CallUnary(Async* async,
                     void (Base::*method)(grpc::ClientContext*, const Request*, Response*,
                                          std::function<void(grpc::Status)>),
                     const Request& request, absl::Duration timeout, EventLoop& loop,
                     std::type_identity_t<std::function<void(absl::StatusOr<Response>)>> done) {
  auto call = std::make_shared<internal::UnaryCall<Response>>();
  call->context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
  (async->*method)(
      &call->context, &request, &call->response,
      [call, &loop, done = std::move(done)](grpc::Status status) mutable {
        loop.Post([call, done, result = FromGrpcStatus(status, call->context)] {
          done(result.ok() ? absl::StatusOr<Response>(std::move(call->response)) : result);
        });
        ReleaseOffGrpcThreads(std::move(call));
      });
  return [call] { call->context.TryCancel(); };
}

// The answer to a unary call. Copies mean the same call; the first answer counts, from any thread.
// If all copies go without one, the caller gets UNAVAILABLE.
template <typename Response>
using UnaryReply = std::function<void(absl::StatusOr<Response>)>;

// Serves a unary method of a callback service on the loop:
//   grpc::ServerUnaryReactor* Ping(grpc::CallbackServerContext* context, const PingRequest*
//   request,
//                                  PingResponse* response) override {
//     return HandleUnary<PingRequest, PingResponse>(context, loop_, request, response,
//         [this](const PingRequest& request, UnaryReply<PingResponse> reply) { ... });
//   }
// `request` is valid until the reply.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* HandleUnary(
    grpc::CallbackServerContext* context, EventLoop& loop, const Request* request,
    Response* response, std::function<void(const Request&, UnaryReply<Response>)> handle) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto answer = std::make_shared<internal::UnaryAnswer<Response>>(context, reactor, response);
  loop.Post([request, answer, handle = std::move(handle)] {
    handle(*request,
           [answer](absl::StatusOr<Response> result) { answer->Finish(std::move(result)); });
  });
  return reactor;
}

}  // namespace tarn
