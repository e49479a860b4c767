// The whole node, with real threads, sockets and transport, and the fake model.

#include "decode_node/server/decode_server.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "common/runtime/real/real_event_loop.h"
#include "proto/decode.grpc.pb.h"

namespace tarn::decode {
namespace {

constexpr std::chrono::seconds kLimit(30);

DecodeConfig Config() {
  DecodeConfig config;
  config.model.model = "fake";
  config.pool.node_id = "decode-0";
  config.kv_memory = 4 << 20;
  config.pool.transports = "tcp";
  config.drain_timeout = absl::Seconds(1);
  return config;
}

// A router's end of one stream.
class Client {
 public:
  explicit Client(const std::string& address) : stub_(v1::Decode::NewStub(MakeChannel(address))) {
    loop_.Post([this] {
      stream_ = OpenStream(stub_->async(), &v1::Decode::StubInterface::async_interface::Session,
                           loop_, StreamOptions(),
                           StreamHandler<v1::DecodeEvents>{
                               .on_message = [this](v1::DecodeEvents events) { OnEvents(events); },
                               .on_closed = [this](absl::Status) { closed_.set_value(); }});
    });
  }
  ~Client() {
    std::promise<void> dropped;
    loop_.Post([&] {
      stream_.reset();
      dropped.set_value();
    });
    dropped.get_future().wait();
    loop_.Stop();
  }

  void Start(uint64_t id, int tokens) {
    v1::DecodeCommand command;
    command.set_request_id(id);
    for (int i = 0; i < tokens; ++i) command.mutable_admit()->add_tokens(i);
    command.mutable_admit()->set_prompt_length(tokens);
    command.mutable_admit()->set_max_new_tokens(20);
    v1::DecodeCommand start;
    start.set_request_id(id);
    start.mutable_start()->mutable_first_token()->set_token(7);
    loop_.Post([this, command, start] {
      stream_->Send(command);
      stream_->Send(start);
    });
  }
  std::future<v1::DecodeEvent> ended() { return ended_.get_future(); }
  // Once ended.
  int tokens() const { return tokens_; }
  std::future<void> closed() { return closed_.get_future(); }

 private:
  void OnEvents(const v1::DecodeEvents& events) {
    for (const v1::DecodeEvent& event : events.events()) {
      if (event.has_tokens()) tokens_ += event.tokens().tokens_size();
      if (event.has_finished() || event.has_failed()) ended_.set_value(event);
    }
  }

  RealEventLoop loop_{"test-router"};
  std::unique_ptr<v1::Decode::Stub> stub_;
  std::shared_ptr<Stream<v1::DecodeCommand>> stream_;
  std::promise<v1::DecodeEvent> ended_;
  std::promise<void> closed_;
  int tokens_ = 0;
};

TEST(DecodeServer, WritesAnAnswerAndStops) {
  auto server = DecodeServer::Start(Config());
  ASSERT_TRUE(server.ok()) << server.status();
  Client client((*server)->info().rpc_address());
  auto ended = client.ended();
  auto closed = client.closed();
  client.Start(1, 100);  // no block comes: all is computed here
  ASSERT_EQ(ended.wait_for(kLimit), std::future_status::ready);
  const v1::DecodeEvent event = ended.get();
  ASSERT_TRUE(event.has_finished()) << event.DebugString();
  EXPECT_EQ(client.tokens(), 19);
  (*server)->Stop();
  EXPECT_EQ(closed.wait_for(kLimit), std::future_status::ready);
}

TEST(DecodeServer, BadRequestIsAnswered) {
  auto server = DecodeServer::Start(Config());
  ASSERT_TRUE(server.ok()) << server.status();
  Client client((*server)->info().rpc_address());
  auto ended = client.ended();
  client.Start(1, 0);
  ASSERT_EQ(ended.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(ended.get().has_failed());
}

TEST(DecodeServer, ErrorsNameTheFlag) {
  DecodeConfig config = Config();
  config.kv_memory = 1;
  EXPECT_NE(DecodeServer::Start(config).status().ToString().find("--kv-memory"), std::string::npos);
  config = Config();
  config.pool.directories = {"nowhere"};
  EXPECT_NE(DecodeServer::Start(config).status().ToString().find("--directory"), std::string::npos);
}

}  // namespace
}  // namespace tarn::decode
