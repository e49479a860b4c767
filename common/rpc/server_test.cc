#include "common/rpc/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/echo_service.h"
#include "common/rpc/status.h"
#include "common/runtime/real/real_event_loop.h"
#include "gtest/gtest.h"

namespace tarn::rpc_test {
namespace {

std::string HostOf(const std::string& address) { return address.substr(0, address.find(':')); }

// One unary call of a method that has no generated stub here.
absl::StatusOr<std::string> CallRaw(grpc::Channel& channel, const char* method,
                                    const std::string& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  context.set_wait_for_ready(true);
  grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer received;
  const grpc::internal::RpcMethod rpc(method, grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      &channel, rpc, &context, sent, &received);
  RETURN_IF_ERROR(FromGrpcStatus(status));
  std::vector<grpc::Slice> slices;
  received.Dump(&slices);
  std::string result;
  for (const grpc::Slice& part : slices) {
    result.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return result;
}

TEST(RpcServer, HealthFollowsSetServing) {
  RealEventLoop loop("server");
  EchoService service(loop);
  auto server = *RpcServer::Start({}, {&service});
  EXPECT_EQ(HostOf(server->address()), "127.0.0.1");
  EXPECT_GT(server->port(), 0);
  auto channel = MakeChannel(server->address());
  // HealthCheckResponse.status: 1 SERVING, 2 NOT_SERVING.
  EXPECT_EQ(*CallRaw(*channel, "/grpc.health.v1.Health/Check", ""), "\x08\x02");
  server->SetServing(true);
  EXPECT_EQ(*CallRaw(*channel, "/grpc.health.v1.Health/Check", ""), "\x08\x01");
}

TEST(RpcServer, HasReflection) {
  RealEventLoop loop("server");
  EchoService service(loop);
  auto server = *RpcServer::Start({}, {&service});
  auto channel = MakeChannel(server->address());
  // A streaming method, called as a unary one: ServerReflectionRequest.list_services = "".
  const absl::StatusOr<std::string> reply =
      CallRaw(*channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              std::string("\x3a\x00", 2));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_NE(reply->find("tarn.rpc_test.Echo"), std::string::npos);
}

TEST(RpcServer, APortInUseIsSaid) {
  RealEventLoop loop("server");
  EchoService service(loop);
  auto first = *RpcServer::Start({}, {&service});
  EchoService other(loop);
  auto second = RpcServer::Start({.listen = first->address()}, {&other});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(second.status()),
            "cannot listen on " + first->address() + ": Address already in use");
}

TEST(RpcServer, AnAddressThatMakesNoSenseIsSaid) {
  EXPECT_EQ(RpcServer::Start({.listen = "nowhere"}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RpcServer, RefusesLargerMessagesThanItsLimit) {
  RealEventLoop loop("server");
  EchoService service(loop);
  service.on_call = [](const Ping& ping, UnaryReply<Pong> reply) {
    reply(MakePong(ping.payload().size()));
  };
  auto server = *RpcServer::Start({.max_message_bytes = 1000}, {&service});
  auto stub = Echo::NewStub(MakeChannel(server->address()));
  for (const auto& [bytes, code] : {std::pair(900, grpc::StatusCode::OK),
                                    std::pair(1100, grpc::StatusCode::RESOURCE_EXHAUSTED)}) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    Pong pong;
    EXPECT_EQ(stub->Call(&context, MakePing(1, bytes), &pong).error_code(), code) << bytes;
  }
  server->Shutdown(absl::Seconds(1));
}

TEST(Status, CodesSurviveTheWayThereAndBack) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(Status, RetryHintIsRoundedUpToMilliseconds) {
  EXPECT_EQ(RetryAfter(absl::AbortedError("x")), std::nullopt);
  EXPECT_EQ(RetryAfter(WithRetryAfter(absl::AbortedError("x"), absl::Microseconds(1500))),
            absl::Milliseconds(2));
}

}  // namespace
}  // namespace tarn::rpc_test
