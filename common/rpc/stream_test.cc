#include "common/rpc/stream.h"

#include <atomic>
#include <future>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/base/thread_sanitizer.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "common/rpc/echo_service.h"
#include "common/runtime/real/real_event_loop.h"
#include "gtest/gtest.h"

namespace tarn::rpc_test {
namespace {

using Async = Echo::StubInterface::async_interface;
constexpr std::chrono::seconds kPatience(30);

// A value that a loop sets and the test awaits.
template <typename T>
class Box {
 public:
  void Set(T value) { promise_.set_value(std::move(value)); }
  T Get() {
    if (future_.wait_for(kPatience) != std::future_status::ready) {
      ADD_FAILURE() << "nothing came";
      std::abort();
    }
    return future_.get();
  }
  bool Ready() { return future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

 private:
  std::promise<T> promise_;
  std::future<T> future_ = promise_.get_future();
};

// Keeps what servers hold, on the server's loop.
struct Sessions {
  std::map<Stream<Pong>*, std::shared_ptr<Stream<Pong>>> open;
};

class StreamTest : public testing::Test {
 protected:
  StreamTest() : server_loop_("server"), client_loop_("client"), service_(server_loop_) {
    EchoAll();
    server_ = *RpcServer::Start({}, {&service_});
    channel_ = MakeChannel(server_->address());
    stub_ = Echo::NewStub(channel_);
  }

  ~StreamTest() override {
    if (server_) server_->Shutdown(absl::Milliseconds(100));
    stub_.reset();
    channel_.reset();
  }

  // The server sends each message back.
  void EchoAll() {
    service_.on_attach = [this](std::shared_ptr<Stream<Pong>> stream) {
      Stream<Pong>* key = stream.get();
      sessions_.open[key] = std::move(stream);
      return StreamHandler<Ping>{
          .on_message = [key](Ping ping) { key->Send(MakePong(ping.number())); },
          .on_closed =
              [this, key](absl::Status status) {
                sessions_.open.erase(key);
                if (++server_closed_ == 1) first_server_closed_.Set(status);
              },
      };
    };
  }

  std::shared_ptr<Stream<Ping>> Open(StreamHandler<Pong> handler, StreamOptions options = {}) {
    return OpenStream(stub_->async(), &Async::Attach, client_loop_, options, std::move(handler));
  }

  // Runs on the client's loop and waits.
  void OnClientLoop(std::function<void()> task) { RunOn(client_loop_, std::move(task)); }

  static void RunOn(EventLoop& loop, std::function<void()> task) {
    Box<bool> done;
    loop.Post([&] {
      task();
      done.Set(true);
    });
    done.Get();
  }

  Sessions sessions_;
  std::atomic<int> server_closed_{0};
  Box<absl::Status> first_server_closed_;
  RealEventLoop server_loop_;
  RealEventLoop client_loop_;
  EchoService service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Echo::Stub> stub_;
};

TEST_F(StreamTest, ThousandsOfMessagesInOrderAndAHalfClose) {
  constexpr uint64_t kCount = 5000;
  service_.stream_options.max_queued_messages = kCount;
  uint64_t next = 0;
  bool opened = false;
  Box<absl::Status> closed;
  auto stream = Open({.on_open = [&] { opened = true; },
                      .on_message =
                          [&](Pong pong) {
                            EXPECT_TRUE(opened);
                            EXPECT_EQ(pong.number(), next++);
                          },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }},
                     {.max_queued_messages = kCount});
  for (uint64_t i = 0; i < kCount; ++i) stream->Send(MakePing(i));
  stream->Close(absl::OkStatus());
  EXPECT_EQ(closed.Get(), absl::OkStatus());
  EXPECT_EQ(next, kCount);
  EXPECT_EQ(first_server_closed_.Get(), absl::OkStatus());
  EXPECT_EQ(stream->pending_bytes(), 0u);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, ManyStreamsAtOnce) {
  constexpr int kStreams = 50;
  constexpr int kMessages = 100;
  std::vector<std::shared_ptr<Stream<Ping>>> streams;
  std::vector<std::unique_ptr<Box<absl::Status>>> closed;
  int received = 0;
  for (int i = 0; i < kStreams; ++i) {
    closed.push_back(std::make_unique<Box<absl::Status>>());
    streams.push_back(Open(
        {.on_message = [&](Pong) { ++received; },
         .on_closed = [box = closed.back().get()](absl::Status status) { box->Set(status); }}));
  }
  for (int m = 0; m < kMessages; ++m) {
    for (auto& stream : streams) stream->Send(MakePing(m));
  }
  for (auto& stream : streams) stream->Close(absl::OkStatus());
  for (auto& box : closed) EXPECT_EQ(box->Get(), absl::OkStatus());
  EXPECT_EQ(received, kStreams * kMessages);
  OnClientLoop([&] { streams.clear(); });
}

TEST_F(StreamTest, TheServersStatusAndRetryHintReachTheClient) {
  service_.on_attach = [this](std::shared_ptr<Stream<Pong>> stream) {
    stream->Send(MakePong(1));
    stream->Close(WithRetryAfter(absl::ResourceExhaustedError("full"), absl::Milliseconds(1500)));
    stream->Send(MakePong(2));
    sessions_.open[stream.get()] = stream;
    return StreamHandler<Ping>{.on_closed = [this](absl::Status status) {
      first_server_closed_.Set(status);
      sessions_.open.clear();
    }};
  };
  int received = 0;
  Box<absl::Status> closed;
  auto stream = Open({.on_message = [&](Pong) { ++received; },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }});
  const absl::Status status = closed.Get();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(status), "full");
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(1500));
  EXPECT_EQ(received, 1);
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kResourceExhausted);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, ACancellingClientIsNoticed) {
  Box<absl::Status> closed;
  Box<bool> opened;
  auto stream = Open({.on_open = [&] { opened.Set(true); },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }});
  opened.Get();
  stream->Close(absl::CancelledError("enough"));
  EXPECT_EQ(closed.Get(), absl::CancelledError("enough"));
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kCancelled);
  RunOn(server_loop_, [&] { EXPECT_TRUE(sessions_.open.empty()); });
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, ADroppedHandleCallsNothingAndEndsTheCall) {
  Box<bool> got_one;
  bool closed = false;
  std::shared_ptr<Stream<Ping>> stream;
  OnClientLoop([&] {
    stream = Open({.on_message =
                       [&](Pong pong) {
                         EXPECT_EQ(pong.number(), 0u);
                         stream.reset();  // inside its own handler
                         got_one.Set(true);
                       },
                   .on_closed = [&](absl::Status) { closed = true; }});
    for (int i = 0; i < 1000; ++i) stream->Send(MakePing(i));
  });
  got_one.Get();
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kCancelled);
  OnClientLoop([&] { EXPECT_FALSE(closed); });
}

TEST_F(StreamTest, HandlesDropAtAnyMoment) {
  for (int i = 0; i < 200; ++i) {
    std::shared_ptr<Stream<Ping>> stream;
    OnClientLoop([&] {
      stream = Open({.on_message = [](Pong) {}, .on_closed = [](absl::Status) {}});
      for (int m = 0; m < i % 7; ++m) stream->Send(MakePing(m));
      if (i % 3 == 0) stream->Close(absl::OkStatus());
    });
    if (i % 2 == 0) std::this_thread::yield();
    OnClientLoop([&] { stream.reset(); });
  }
}

TEST_F(StreamTest, TheClientsLoopMayGoOnceItsHandlesAreGone) {
  for (int i = 0; i < 20; ++i) {
    auto loop = std::make_unique<RealEventLoop>("short");
    std::shared_ptr<Stream<Ping>> stream;
    RunOn(*loop, [&] {
      stream = OpenStream(stub_->async(), &Async::Attach, *loop, StreamOptions{},
                          StreamHandler<Pong>{.on_message = [](Pong) {}});
      for (int m = 0; m < 20; ++m) stream->Send(MakePing(m));
    });
    RunOn(*loop, [&] { stream.reset(); });
  }
}

TEST_F(StreamTest, TheServerMayDropItsHandle) {
  service_.on_attach = [](std::shared_ptr<Stream<Pong>>) {
    return StreamHandler<Ping>{.on_message = [](Ping) { ADD_FAILURE(); },
                               .on_closed = [](absl::Status) { ADD_FAILURE(); }};
  };
  Box<absl::Status> closed;
  auto stream = Open({.on_closed = [&](absl::Status status) { closed.Set(status); }});
  stream->Send(MakePing(1));
  EXPECT_EQ(closed.Get().code(), absl::StatusCode::kCancelled);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, NobodyListening) {
  server_->Shutdown(absl::ZeroDuration());
  Box<absl::Status> closed;
  auto stream = Open({.on_open = [] { ADD_FAILURE(); },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }});
  stream->Send(MakePing(1));
  EXPECT_EQ(closed.Get().code(), absl::StatusCode::kUnavailable);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, ADyingServerClosesBothSides) {
  Box<absl::Status> closed;
  Box<bool> opened;
  auto stream = Open({.on_open = [&] { opened.Set(true); },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }});
  opened.Get();
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(closed.Get().ok());
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kCancelled);
  OnClientLoop([&] { stream.reset(); });
}

// gRPC takes a message whole; only further ones wait. 1 MiB is more than its windows hold.
TEST_F(StreamTest, AServerThatSendsTooMuchIsCutAtTheLimit) {
  service_.stream_options.max_queued_bytes = 4 << 20;
  service_.stream_options.close_grace = absl::Milliseconds(200);
  size_t pending = 0;
  service_.on_attach = [&](std::shared_ptr<Stream<Pong>> stream) {
    sessions_.open[stream.get()] = stream;
    for (int i = 0; i < 100; ++i) {
      stream->Send(MakePong(i, 1 << 20));
      pending = std::max(pending, stream->pending_bytes());
    }
    return StreamHandler<Ping>{.on_closed = [this](absl::Status status) {
      sessions_.open.clear();
      first_server_closed_.Set(status);
    }};
  };
  // A client that does not read on: its loop is busy and it may hold one message.
  Box<absl::Status> closed;
  Box<bool> release;
  client_loop_.Post([&] { release.Get(); });
  auto stream = Open({.on_closed = [&](absl::Status status) { closed.Set(status); }},
                     {.max_unhandled_messages = 1});
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LE(pending, 5u << 20);
  release.Set(true);
  EXPECT_FALSE(closed.Get().ok());
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, AClientThatSendsTooMuchIsCutAtTheLimit) {
  Box<absl::Status> closed;
  auto stream = Open({.on_closed = [&](absl::Status status) { closed.Set(status); }},
                     {.max_queued_messages = 3});
  // Nothing leaves before the connection is there, which takes longer than this; and if it does
  // leave, more follow.
  for (int i = 0; i < 100000 && !closed.Ready(); ++i) stream->Send(MakePing(i));
  EXPECT_EQ(closed.Get().code(), absl::StatusCode::kResourceExhausted);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, ReadingPausesWhileTheLoopIsBusy) {
  constexpr uint64_t kCount = 300;
  Box<bool> release;
  client_loop_.Post([&] { release.Get(); });
  uint64_t next = 0;
  Box<absl::Status> closed;
  auto stream = Open({.on_message = [&](Pong pong) { EXPECT_EQ(pong.number(), next++); },
                      .on_closed = [&](absl::Status status) { closed.Set(status); }},
                     {.max_unhandled_messages = 2});
  for (uint64_t i = 0; i < kCount; ++i) stream->Send(MakePing(i));
  stream->Close(absl::OkStatus());
  release.Set(true);
  EXPECT_EQ(closed.Get(), absl::OkStatus());
  EXPECT_EQ(next, kCount);
  OnClientLoop([&] { stream.reset(); });
}

TEST_F(StreamTest, AWriterStreamsAndFinishes) {
  service_.on_count = [this](const Ping& ping, std::shared_ptr<Stream<Pong>> writer) {
    for (uint64_t i = 0; i < ping.number(); ++i) writer->Send(MakePong(i));
    writer->Close(absl::OkStatus());
    sessions_.open[writer.get()] = writer;
    return WriterHandler{[this](absl::Status status) { first_server_closed_.Set(status); }};
  };
  uint64_t next = 0;
  Box<absl::Status> closed;
  auto reader = OpenReader(
      stub_->async(), &Async::Count, MakePing(1000), client_loop_, StreamOptions{},
      StreamHandler<Pong>{.on_message = [&](Pong pong) { EXPECT_EQ(pong.number(), next++); },
                          .on_closed = [&](absl::Status status) { closed.Set(status); }});
  EXPECT_EQ(closed.Get(), absl::OkStatus());
  EXPECT_EQ(next, 1000u);
  EXPECT_EQ(first_server_closed_.Get(), absl::OkStatus());
  RunOn(server_loop_, [&] { sessions_.open.clear(); });
  OnClientLoop([&] { reader.reset(); });
}

TEST_F(StreamTest, AWriterLearnsThatItsClientIsGone) {
  service_.on_count = [this](const Ping&, std::shared_ptr<Stream<Pong>> writer) {
    writer->Send(MakePong(0));
    sessions_.open[writer.get()] = writer;
    return WriterHandler{[this](absl::Status status) { first_server_closed_.Set(status); }};
  };
  Box<bool> got_one;
  Box<absl::Status> closed;
  auto reader = OpenReader(
      stub_->async(), &Async::Count, MakePing(1), client_loop_, StreamOptions{},
      StreamHandler<Pong>{.on_message = [&](Pong) { got_one.Set(true); },
                          .on_closed = [&](absl::Status status) { closed.Set(status); }});
  got_one.Get();
  reader->Cancel();
  EXPECT_EQ(closed.Get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(first_server_closed_.Get().code(), absl::StatusCode::kCancelled);
  RunOn(server_loop_, [&] { sessions_.open.clear(); });
  OnClientLoop([&] { reader.reset(); });
}

TEST_F(StreamTest, UnaryCallsAnswerFailAndTimeOut) {
  const auto call = [&](uint64_t number, absl::Duration timeout) {
    auto box = std::make_shared<Box<absl::StatusOr<Pong>>>();
    CallUnary(stub_->async(), &Async::Call, MakePing(number), timeout, client_loop_,
              [this, box](absl::StatusOr<Pong> pong) {
                EXPECT_TRUE(client_loop_.OnLoop());
                box->Set(std::move(pong));
              });
    return box->Get();
  };
  std::vector<UnaryReply<Pong>> kept;
  service_.on_call = [&](const Ping& ping, UnaryReply<Pong> reply) {
    EXPECT_TRUE(server_loop_.OnLoop());
    const uint64_t number = ping.number();  // the first reply ends the life of `ping`
    if (number == 1) reply(MakePong(11));
    if (number == 2) {
      reply(WithRetryAfter(absl::AbortedError("stale"), absl::Microseconds(10)));
      reply(MakePong(2));
    }
    if (number == 3) kept.push_back(reply);
  };
  const absl::Duration patience = absl::Seconds(30);
  EXPECT_EQ(call(1, patience)->number(), 11u);
  EXPECT_EQ(call(2, patience).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(RetryAfter(call(2, patience).status()), absl::Milliseconds(1));
  EXPECT_EQ(call(3, absl::Milliseconds(50)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(call(4, patience).status().code(), absl::StatusCode::kUnavailable);  // dropped
  RunOn(server_loop_, [&] { kept.clear(); });
}

// Calls that end after their channel hold it last, on gRPC's threads: which the last one ends.
TEST_F(StreamTest, ChannelsMayGoBeforeTheirCalls) {
  server_.reset();
  channel_.reset();
  stub_.reset();
  for (int i = 0; i < (kThreadSanitizer ? 5 : 50); ++i) {
    auto stub = Echo::NewStub(MakeChannel("127.0.0.1:1"));
    auto closed = std::make_shared<Box<absl::Status>>();
    auto called = std::make_shared<Box<absl::StatusOr<Pong>>>();
    auto stream = OpenStream(
        stub->async(), &Async::Attach, client_loop_, StreamOptions{},
        StreamHandler<Pong>{.on_closed = [closed](absl::Status status) { closed->Set(status); }});
    CallUnary(stub->async(), &Async::Call, MakePing(1), absl::Seconds(30), client_loop_,
              [called](absl::StatusOr<Pong> pong) { called->Set(std::move(pong)); });
    stub.reset();
    if (i % 2 == 0) {
      EXPECT_FALSE(closed->Get().ok());
    }
    OnClientLoop([&] { stream.reset(); });
    EXPECT_FALSE(called->Get().ok());
  }
}

}  // namespace
}  // namespace tarn::rpc_test
