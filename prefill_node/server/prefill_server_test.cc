// The whole node, with real threads, sockets and transport, and the fake model.

#include "prefill_node/server/prefill_server.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "common/runtime/real/real_event_loop.h"
#include "proto/prefill.grpc.pb.h"

namespace tarn::prefill {
namespace {

constexpr std::chrono::seconds kLimit(30);

PrefillConfig Config() {
  PrefillConfig config;
  config.model.model = "fake";
  config.pool.node_id = "prefill-0";
  config.kv_memory = 4 << 20;
  config.pool.transports = "tcp";
  config.drain_timeout = absl::Seconds(1);
  return config;
}

// A router's end of one stream.
class Client {
 public:
  explicit Client(const std::string& address) : stub_(v1::Prefill::NewStub(MakeChannel(address))) {
    loop_.Post([this] {
      stream_ = OpenStream(stub_->async(), &v1::Prefill::StubInterface::async_interface::Session,
                           loop_, StreamOptions(),
                           StreamHandler<v1::PrefillEvents>{
                               .on_message = [this](v1::PrefillEvents events) { OnEvents(events); },
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
    v1::PrefillCommand command;
    command.set_request_id(id);
    for (int i = 0; i < tokens; ++i) command.mutable_start()->add_tokens(i);
    command.mutable_start()->set_prompt_length(tokens);
    loop_.Post([this, command] { stream_->Send(command); });
  }
  std::future<v1::PrefillEvent> ended() { return ended_.get_future(); }
  std::future<void> closed() { return closed_.get_future(); }

 private:
  void OnEvents(const v1::PrefillEvents& events) {
    for (const v1::PrefillEvent& event : events.events()) {
      if (!event.has_blocks_ready()) ended_.set_value(event);
    }
  }

  RealEventLoop loop_{"test-router"};
  std::unique_ptr<v1::Prefill::Stub> stub_;
  std::shared_ptr<Stream<v1::PrefillCommand>> stream_;
  std::promise<v1::PrefillEvent> ended_;
  std::promise<void> closed_;
};

TEST(PrefillServer, ServesAPromptAndStops) {
  auto server = PrefillServer::Start(Config());
  ASSERT_TRUE(server.ok()) << server.status();
  Client client((*server)->info().rpc_address());
  auto ended = client.ended();
  auto closed = client.closed();
  client.Start(1, 100);
  ASSERT_EQ(ended.wait_for(kLimit), std::future_status::ready);
  const v1::PrefillEvent event = ended.get();
  ASSERT_TRUE(event.has_done()) << event.DebugString();
  EXPECT_EQ(event.done().prompt().computed(), 100u);
  // The hand-over is still pinned: stopping waits for the grace, then goes.
  (*server)->Stop();
  EXPECT_EQ(closed.wait_for(kLimit), std::future_status::ready);
}

TEST(PrefillServer, BadRequestIsAnswered) {
  auto server = PrefillServer::Start(Config());
  ASSERT_TRUE(server.ok()) << server.status();
  Client client((*server)->info().rpc_address());
  auto ended = client.ended();
  client.Start(1, 0);
  ASSERT_EQ(ended.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(ended.get().has_failed());
}

TEST(PrefillServer, ErrorsNameTheFlag) {
  PrefillConfig config = Config();
  config.kv_memory = 1;
  EXPECT_NE(PrefillServer::Start(config).status().ToString().find("--kv-memory"),
            std::string::npos);
  config = Config();
  config.pool.directories = {"nowhere"};
  EXPECT_NE(PrefillServer::Start(config).status().ToString().find("--directory"),
            std::string::npos);
}

}  // namespace
}  // namespace tarn::prefill
