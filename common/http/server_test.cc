#include "common/http/server.h"

#include <glog/logging.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <future>
#include <random>
#include <thread>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/http/router.h"
#include "common/http/status_pages.h"
#include "common/http/test_client.h"
#include "gtest/gtest.h"

namespace tarn {
namespace {

using ResponderPtr = std::shared_ptr<HttpResponder>;

// Awaits something that another thread does.
class Event {
 public:
  void Set() { promise_.set_value(); }
  bool Wait() { return future_.wait_for(std::chrono::seconds(30)) == std::future_status::ready; }

 private:
  std::promise<void> promise_;
  std::future<void> future_ = promise_.get_future();
};

bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpHandler handler, HttpServerOptions options = {}) {
    auto server = HttpServer::Start(std::move(options), std::move(handler));
    CHECK(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // Answers with what was asked.
  void StartEcho(HttpServerOptions options = {}) {
    Start(
        [](HttpRequest request, ResponderPtr responder) {
          responder->Reply(200, {{"X-Method", request.method}, {"X-Query", request.query}},
                           request.path + ":" + request.body);
        },
        std::move(options));
  }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersRequestsOnOneConnection) {
  StartEcho();
  HttpTestClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    const HttpTestResponse get = client.Get("/a/b?x=1&y=2");
    EXPECT_EQ(get.status, 200);
    EXPECT_EQ(get.body, "/a/b:");
    EXPECT_EQ(get.Header("x-query"), "x=1&y=2");
    const HttpTestResponse post = client.Post("/p", std::string(300000, 'b'));
    EXPECT_EQ(post.Header("X-Method"), "POST");
    EXPECT_EQ(post.body, "/p:" + std::string(300000, 'b'));
  }
  EXPECT_EQ(server_->connection_count(), 1u);
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrderOneAtATime) {
  std::vector<std::pair<std::string, ResponderPtr>> waiting;
  Mutex mutex;
  Start([&](HttpRequest request, ResponderPtr responder) {
    MutexLock lock(mutex);
    waiting.emplace_back(request.path, std::move(responder));
  });
  const auto take = [&] {
    EXPECT_TRUE(Eventually([&] {
      MutexLock lock(mutex);
      return !waiting.empty();
    }));
    MutexLock lock(mutex);
    EXPECT_EQ(waiting.size(), 1u);
    auto taken = std::move(waiting.front());
    waiting.clear();
    return taken;
  };
  HttpTestClient client(server_->port());
  std::string text;
  for (const char* path : {"/1", "/2", "/3"}) {
    text += "POST " + std::string(path) + " HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
  }
  client.SendRaw(text);
  for (const char* path : {"/1", "/2", "/3"}) {
    auto [got, responder] = take();
    EXPECT_EQ(got, path);
    responder->Reply(200, {}, got);
    EXPECT_FALSE(responder->Reply(200, {}, "twice"));
    EXPECT_EQ(client.ReadResponse().body, path);
  }
}

TEST_F(HttpServerTest, StreamsChunksAndKeepsTheConnection) {
  Start([](HttpRequest, ResponderPtr responder) {
    EXPECT_TRUE(responder->StartStream(200, {{"Content-Type", "text/event-stream"}}));
    std::thread([responder] {
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(responder->Write("data: " + std::to_string(i)));
      EXPECT_TRUE(responder->Write(""));
      EXPECT_TRUE(responder->End());
      EXPECT_FALSE(responder->Write("late"));
    }).detach();
  });
  HttpTestClient client(server_->port());
  for (int round = 0; round < 2; ++round) {
    client.SendRequest("GET", "/");
    EXPECT_EQ(client.ReadHead().Header("Content-Type"), "text/event-stream");
    for (int i = 0; i < 100; ++i) EXPECT_EQ(client.ReadChunk(), "data: " + std::to_string(i));
    EXPECT_EQ(client.ReadChunk(), "");
  }
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  StartEcho();
  HttpTestClient client(server_->port());
  client.SendRequest("HEAD", "/abc");
  const HttpTestResponse head = client.ReadResponse(/*head_only=*/true);
  EXPECT_EQ(head.Header("Content-Length"), "5");
  EXPECT_EQ(client.Get("/next").body, "/next:");
}

TEST_F(HttpServerTest, Http10EndsAStreamWithTheConnection) {
  Start([](HttpRequest, ResponderPtr responder) {
    responder->StartStream(200, {});
    responder->Write("ab");
    responder->Write("c");
    responder->End();
  });
  HttpTestClient client(server_->port());
  client.SendRaw("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.ReadHead().Header("Transfer-Encoding"), "");
  EXPECT_EQ(client.ReadToEnd(), "abc");
}

TEST_F(HttpServerTest, ConnectionCloseIsHonoured) {
  StartEcho();
  HttpTestClient client(server_->port());
  client.SendRequest("GET", "/", "", {{"Connection", "close"}});
  const HttpTestResponse response = client.ReadResponse();
  EXPECT_EQ(response.Header("Connection"), "close");
  EXPECT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, Expect100Continue) {
  StartEcho();
  HttpTestClient client(server_->port());
  client.SendRaw("POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 100);
  client.SendRaw("abc");
  EXPECT_EQ(client.ReadResponse().body, "/x:abc");
}

TEST_F(HttpServerTest, NoticesAHangUpWhileNobodyWrites) {
  ResponderPtr kept;
  Event asked, closed;
  Start([&](HttpRequest, ResponderPtr responder) {
    responder->OnClose([&] { closed.Set(); });
    kept = std::move(responder);
    asked.Set();
  });
  HttpTestClient client(server_->port());
  client.SendRequest("GET", "/");
  ASSERT_TRUE(asked.Wait());
  client.Close();
  ASSERT_TRUE(closed.Wait());
  EXPECT_FALSE(kept->Reply(200, {}, ""));
  EXPECT_FALSE(kept->StartStream(200, {}));
  bool at_once = false;
  kept->OnClose([&] { at_once = true; });
  EXPECT_TRUE(at_once);
}

TEST_F(HttpServerTest, NoticesAHangUpInAStream) {
  ResponderPtr kept;
  Event closed;
  Start([&](HttpRequest, ResponderPtr responder) {
    responder->StartStream(200, {});
    responder->Write("first");
    responder->OnClose([&] { closed.Set(); });
    kept = std::move(responder);
  });
  HttpTestClient client(server_->port());
  client.SendRequest("GET", "/");
  client.ReadHead();
  EXPECT_EQ(client.ReadChunk(), "first");
  client.Close();
  ASSERT_TRUE(closed.Wait());
  EXPECT_FALSE(kept->Write("more"));
  EXPECT_EQ(kept->pending_bytes(), 0u);
}

TEST_F(HttpServerTest, ASlowReaderIsCutAtTheLimit) {
  ResponderPtr kept;
  Event asked, closed;
  Start(
      [&](HttpRequest, ResponderPtr responder) {
        responder->StartStream(200, {});
        responder->OnClose([&] { closed.Set(); });
        kept = std::move(responder);
        asked.Set();
      },
      {.max_pending_bytes = 1 << 20});
  HttpTestClient client(server_->port(), /*receive_buffer=*/4096);
  client.SendRequest("GET", "/");
  ASSERT_TRUE(asked.Wait());
  const std::string chunk(64 << 10, 'x');
  size_t most = 0;
  int accepted = 0;
  // The kernel takes a few MB at most; then the limit holds.
  while (accepted < 10000 && kept->Write(chunk)) {
    ++accepted;
    most = std::max(most, kept->pending_bytes());
  }
  EXPECT_LT(accepted, 10000);
  EXPECT_LE(most, (1u << 20) + (1u << 10));
  EXPECT_TRUE(closed.Wait());
  EXPECT_TRUE(Eventually([&] { return server_->connection_count() == 0; }));
}

TEST_F(HttpServerTest, ADroppedResponderIsA500OrABrokenStream) {
  Start([](HttpRequest request, ResponderPtr responder) {
    if (request.path == "/stream") responder->StartStream(200, {});
  });
  HttpTestClient client(server_->port());
  EXPECT_EQ(client.Get("/").status, 500);
  client.SendRequest("GET", "/stream");
  client.ReadHead();
  EXPECT_EQ(client.ReadChunk(), std::nullopt);
}

size_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

TEST_F(HttpServerTest, A100MegabyteBodyIsRefusedUnread) {
  StartEcho();
  const size_t before = ResidentBytes();
  HttpTestClient client(server_->port());
  client.SendRaw("POST / HTTP/1.1\r\nContent-Length: 104857600\r\n\r\n");
  // The answer does not wait for the body, and a client that sends on still gets it.
  const std::string piece(1 << 20, 'x');
  for (int i = 0; i < 8; ++i) client.SendRaw(piece);
  const HttpTestResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 413);
  EXPECT_NE(response.body.find("over the limit of 8388608 bytes"), std::string::npos);
  EXPECT_LT(ResidentBytes(), before + (32u << 20));
}

TEST_F(HttpServerTest, AnEndlessChunkedBodyIsRefusedAtTheLimit) {
  StartEcho({.max_body_bytes = 100000});
  HttpTestClient client(server_->port());
  client.SendRaw("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "8000\r\n" + std::string(0x8000, 'x') + "\r\n";
  for (int i = 0; i < 20; ++i) client.SendRaw(chunk);
  EXPECT_EQ(client.ReadResponse().status, 413);
}

TEST_F(HttpServerTest, LargeHeadersAreRefused) {
  StartEcho({.max_header_bytes = 1000});
  HttpTestClient client(server_->port());
  client.SendRequest("GET", "/", "", {{"X-Large", std::string(2000, 'x')}});
  EXPECT_EQ(client.ReadResponse().status, 431);
}

TEST_F(HttpServerTest, SlowHeadsAndBodiesTimeOut) {
  StartEcho({.header_timeout = absl::Milliseconds(50), .body_timeout = absl::Milliseconds(50)});
  HttpTestClient head(server_->port());
  head.SendRaw("GET / HTT");
  EXPECT_EQ(head.ReadResponse().status, 408);
  EXPECT_TRUE(head.ReadsEnd());
  HttpTestClient body(server_->port());
  body.SendRaw("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(body.ReadResponse().status, 408);
}

TEST_F(HttpServerTest, IdleConnectionsAreClosed) {
  StartEcho({.idle_timeout = absl::Milliseconds(50)});
  HttpTestClient client(server_->port());
  EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, GarbageIsA400AndHarmsNobody) {
  using std::string_literals::operator""s;
  StartEcho();
  const std::string bad[] = {
      "hello\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls \r\n\r\n"s,
      "GET / HTTP/9.9\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
      "GET / HTTP/1.1\r\nno colon\r\n\r\n",
  };
  for (const std::string& text : bad) {
    HttpTestClient client(server_->port());
    client.SendRaw(text);
    EXPECT_EQ(client.ReadResponse().status, 400) << text;
  }
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    std::string noise(random() % 300, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    HttpTestClient client(server_->port());
    client.SendRaw(noise + "\r\n\r\n");
  }
  EXPECT_EQ(HttpTestClient(server_->port()).Get("/ok").body, "/ok:");
  EXPECT_TRUE(Eventually([&] { return server_->connection_count() == 0; }));
}

TEST_F(HttpServerTest, ErrorBodiesHaveTheOwnersForm) {
  StartEcho(
      {.error_body = [](int status, const std::string&) { return "E" + std::to_string(status); }});
  HttpTestClient client(server_->port());
  client.SendRaw("?\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "E400");
}

TEST_F(HttpServerTest, HeadersCannotBeForged) {
  Start([](HttpRequest, ResponderPtr responder) {
    responder->Reply(200, {{"X-A", "1\r\nX-Evil: 2"}, {"X-B", "3"}}, "");
  });
  const HttpTestResponse response = HttpTestClient(server_->port()).Get("/");
  EXPECT_EQ(response.Header("X-Evil"), "");
  EXPECT_EQ(response.Header("X-B"), "3");
}

TEST_F(HttpServerTest, AThousandOpenStreams) {
  constexpr int kStreams = 1000;
  std::vector<ResponderPtr> open;
  Mutex mutex;
  std::atomic<int> hung_up{0};
  Start(
      [&](HttpRequest, ResponderPtr responder) {
        responder->StartStream(200, {});
        responder->OnClose([&] { ++hung_up; });
        MutexLock lock(mutex);
        open.push_back(std::move(responder));
      },
      {.io_threads = 2});
  std::vector<std::unique_ptr<HttpTestClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<HttpTestClient>(server_->port()));
    clients.back()->SendRequest("GET", "/");
  }
  for (auto& client : clients) ASSERT_EQ(client->ReadHead().status, 200);
  for (int round = 0; round < 3; ++round) {
    for (auto& responder : open) EXPECT_TRUE(responder->Write("token"));
  }
  for (int i = 0; i < kStreams; ++i) {
    for (int round = 0; round < 3; ++round) ASSERT_EQ(clients[i]->ReadChunk(), "token");
  }
  clients.resize(kStreams / 2);
  EXPECT_TRUE(Eventually([&] { return hung_up == kStreams / 2; }));
  server_->Stop(absl::ZeroDuration());
  EXPECT_EQ(hung_up, kStreams);
  EXPECT_EQ(server_->connection_count(), 0u);
  for (auto& responder : open) EXPECT_FALSE(responder->Write("late"));
}

TEST_F(HttpServerTest, StopLetsAnAnswerEnd) {
  ResponderPtr kept;
  Event asked;
  Start([&](HttpRequest, ResponderPtr responder) {
    kept = std::move(responder);
    asked.Set();
  });
  HttpTestClient busy(server_->port());
  HttpTestClient idle(server_->port());
  busy.SendRequest("GET", "/");
  ASSERT_TRUE(asked.Wait());
  std::thread stopper([&] { server_->Stop(absl::Seconds(30)); });
  EXPECT_TRUE(idle.ReadsEnd());
  EXPECT_TRUE(kept->Reply(200, {}, "done"));
  EXPECT_EQ(busy.ReadResponse().body, "done");
  busy.Close();
  stopper.join();
}

TEST_F(HttpServerTest, RespondersOutliveTheServer) {
  ResponderPtr kept;
  Event asked;
  Start([&](HttpRequest, ResponderPtr responder) {
    kept = std::move(responder);
    asked.Set();
  });
  HttpTestClient client(server_->port());
  client.SendRequest("GET", "/");
  ASSERT_TRUE(asked.Wait());
  server_.reset();
  EXPECT_FALSE(kept->Reply(200, {}, ""));
}

TEST_F(HttpServerTest, TooManyConnectionsAreTurnedAway) {
  StartEcho({.max_connections = 2});
  HttpTestClient first(server_->port()), second(server_->port());
  EXPECT_EQ(first.Get("/").status, 200);
  EXPECT_EQ(second.Get("/").status, 200);
  HttpTestClient third(server_->port());
  EXPECT_EQ(third.ReadResponse().status, 503);
  first.Close();
  EXPECT_TRUE(Eventually([&] { return server_->connection_count() == 1; }));
  EXPECT_EQ(HttpTestClient(server_->port()).Get("/").status, 200);
}

TEST_F(HttpServerTest, APortInUseAndABadAddressAreSaid) {
  StartEcho();
  const auto handler = [](HttpRequest, ResponderPtr) {};
  const auto second = HttpServer::Start({.listen = server_->address()}, handler);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(second.status()),
            "cannot listen on " + server_->address() + ": Address already in use");
  EXPECT_EQ(HttpServer::Start({.listen = "nonsense"}, handler).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HttpServerTest, RouterFindsHandlersAndSaysWhatIsMissing) {
  const auto named = [](const std::string& name) {
    return [name](HttpRequest, ResponderPtr responder) { responder->Reply(200, {}, name); };
  };
  HttpRouter router;
  router.Handle("GET", "/a", named("get a"));
  router.Handle("POST", "/a", named("post a"));
  router.Handle("GET", "/files/*", named("files"));
  router.Handle("GET", "/files/deep/*", named("deep"));
  Start([&](HttpRequest request, ResponderPtr responder) {
    router.Route(std::move(request), std::move(responder));
  });
  HttpTestClient client(server_->port());
  EXPECT_EQ(client.Get("/a?q").body, "get a");
  EXPECT_EQ(client.Post("/a", "x").body, "post a");
  EXPECT_EQ(client.Get("/files/x/y").body, "files");
  EXPECT_EQ(client.Get("/files/deep/y").body, "deep");
  EXPECT_EQ(client.Get("/b").status, 404);
  client.SendRequest("DELETE", "/a");
  const HttpTestResponse refused = client.ReadResponse();
  EXPECT_EQ(refused.status, 405);
  EXPECT_EQ(refused.Header("Allow"), "GET, POST");
  client.SendRequest("HEAD", "/a");
  EXPECT_EQ(client.ReadResponse(true).status, 200);
}

TEST_F(HttpServerTest, StatusPages) {
  metrics::Registry registry;
  registry.AddCounter("x_total", "X.").Add(2);
  std::atomic<bool> ready{false};
  HttpRouter router;
  AddStatusPages(router, registry, [&] {
    return ready ? absl::OkStatus() : absl::UnavailableError("no decode node");
  });
  Start([&](HttpRequest request, ResponderPtr responder) {
    router.Route(std::move(request), std::move(responder));
  });
  HttpTestClient client(server_->port());
  EXPECT_EQ(client.Get("/health").status, 200);
  const HttpTestResponse not_ready = client.Get("/ready");
  EXPECT_EQ(not_ready.status, 503);
  EXPECT_EQ(not_ready.body, "no decode node\n");
  ready = true;
  EXPECT_EQ(client.Get("/ready").status, 200);
  const HttpTestResponse page = client.Get("/metrics");
  EXPECT_EQ(page.Header("Content-Type"), metrics::Registry::kContentType);
  EXPECT_NE(page.body.find("\nx_total 2\n"), std::string::npos);
}

}  // namespace
}  // namespace tarn
