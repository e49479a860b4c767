#pragma once

// Unary calls as callbacks on an EventLoop.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/status.h"
#include "common/runtime/event_loop.h"

namespace tarn {

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
                     Request request, absl::Duration timeout, EventLoop& loop,
                     std::type_identity_t<std::function<void(absl::StatusOr<Response>)>> done);

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
    Response* response, std::function<void(const Request&, UnaryReply<Response>)> handle);

}  // namespace tarn
