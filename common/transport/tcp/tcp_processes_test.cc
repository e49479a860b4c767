// TcpTransport between processes that are killed and stopped, and towards strangers.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/tcp/tcp_socket.h"
#include "common/transport/tcp/tcp_transport.h"
#include "common/transport/tcp/tcp_wire.h"
#include "common/transport/ucx/child_process.h"

namespace tarn {
namespace {

constexpr size_t kPoolBytes = size_t{8} << 20;
constexpr size_t kBlock = size_t{256} << 10;
constexpr size_t kBlocks = kPoolBytes / kBlock;
constexpr absl::Duration kLimit = absl::Seconds(60);
constexpr absl::Duration kStall = absl::Seconds(1);

// Each starts a process, which takes a second under ThreadSanitizer.
#if defined(__SANITIZE_THREAD__)
constexpr int kKills = 4;
#else
constexpr int kKills = 20;
#endif

// What every pool holds.
const std::vector<std::byte>& PoolBytes() {
  static const auto* const bytes = [] {
    auto* const filled = new std::vector<std::byte>(kPoolBytes);
    Random(1).Fill(*filled);
    return filled;
  }();
  return *bytes;
}

using enum absl::StatusCode;
using Statuses = std::vector<absl::Status>;

// The outcome of one batch.
class Outcome {
 public:
  void Set(Statuses statuses) {
    MutexLock lock(mutex_);
    ++times_;
    statuses_ = std::move(statuses);
    changed_.notify_all();
  }
  // May be called again.
  Statuses Wait() {
    const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kLimit);
    MutexLock lock(mutex_);
    while (times_ == 0) {
      if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) break;
    }
    EXPECT_EQ(times_, 1) << "done did not run exactly once";
    return statuses_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  int times_ ABSL_GUARDED_BY(mutex_) = 0;
  Statuses statuses_ ABSL_GUARDED_BY(mutex_);
};

// A transport with a pool that peers read, and one to read into.
class Node {
 public:
  explicit Node(TcpOptions options = {.stall_timeout = kStall}) {
    auto transport = TcpTransport::Create(options, loop_);
    CHECK(transport.ok()) << transport.status();
    transport_ = *std::move(transport);
    pool_ = *transport_->Allocate(kPoolBytes);
    target_ = *transport_->Allocate(kPoolBytes);
    std::memcpy(pool_->bytes().data(), PoolBytes().data(), kPoolBytes);
  }

  std::span<std::byte> target() { return target_->bytes(); }
  PeerAddress address() const { return {transport_->Address(), {pool_->descriptor()}}; }
  TcpAddress tcp_address() const { return *DecodeTcpAddress(transport_->Address()); }
  void FreePool() { pool_.reset(); }

  PeerId ConnectTo(ChildProcess& owner) {
    const auto address = owner.channel().ReceiveAddress(kLimit);
    CHECK(address.ok()) << address.status();
    const auto peer = transport_->Connect(*address);
    CHECK(peer.ok()) << peer.status();
    return *peer;
  }
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) { return transport_->Connect(peer); }

  // Starts to read all blocks of the peer's pool.
  void Start(PeerId peer, Outcome& outcome, absl::Duration limit = absl::InfiniteDuration()) {
    ReadBatch batch{.deadline = loop_.Now() + limit};
    for (size_t at = 0; at < kPoolBytes; at += kBlock) {
      batch.ops.push_back({RegionIndex(0), at, target().subspan(at, kBlock)});
    }
    loop_.Post([this, peer, batch = std::move(batch), &outcome]() mutable {
      transport_->Read(peer, std::move(batch),
                       [&outcome](auto statuses) { outcome.Set(std::move(statuses)); });
    });
  }
  Statuses Read(PeerId peer) {
    Outcome outcome;
    Start(peer, outcome);
    return outcome.Wait();
  }
  void ExpectReadsPoolOf(PeerId peer) {
    std::memset(target().data(), 0, kPoolBytes);
    for (const absl::Status& status : Read(peer)) EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(std::memcmp(target().data(), PoolBytes().data(), kPoolBytes), 0);
  }

 private:
  RealEventLoop loop_{"node"};
  std::unique_ptr<TcpTransport> transport_;
  std::unique_ptr<RegisteredMemory> pool_;
  std::unique_ptr<RegisteredMemory> target_;
};

std::unique_ptr<ChildProcess> StartChild(const std::string& role) {
  auto child = ChildProcess::Start(role);
  CHECK(child.ok()) << child.status();
  return *std::move(child);
}

// The role "owner": a pool, until the parent has gone.
void RunOwner(Channel& channel) {
  Node node;
  if (!channel.SendAddress(node.address()).ok()) return;
  (void)channel.Receive(absl::InfiniteDuration());
}

// The role "reader": reads the parent's pool over and over, several batches at a time; says so once
// the first is there.
void RunReader(Channel& channel) {
  Node node;
  const auto address = channel.ReceiveAddress(kLimit);
  CHECK(address.ok()) << address.status();
  const auto peer = node.Connect(*address);
  CHECK(peer.ok()) << peer.status();
  while (true) {
    std::vector<Outcome> outcomes(4);
    for (Outcome& outcome : outcomes) node.Start(*peer, outcome);
    for (Outcome& outcome : outcomes) {
      for (const absl::Status& status : outcome.Wait()) CHECK(status.ok()) << status;
      if (!channel.Send("read").ok()) return;
    }
  }
}

// Returns once it has stopped; SIGSTOP alone is only a wish.
void Stop(ChildProcess& child) {
  child.Signal(SIGSTOP);
  siginfo_t info;
  PCHECK(waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED | WNOWAIT) == 0);
}

void ExpectOkOrUnavailable(const Statuses& statuses) {
  ASSERT_EQ(statuses.size(), kBlocks);
  for (const absl::Status& status : statuses) {
    EXPECT_TRUE(status.ok() || status.code() == kUnavailable) << status;
  }
}

// Each round kills the owner at another moment of the transfers.
TEST(TcpProcesses, AKilledOwnerEndsEveryReadAndARestartedOneIsRead) {
  Node reader;
  int lost = 0;
  for (int round = 0; round < kKills; ++round) {
    auto owner = StartChild("owner");
    const PeerId peer = reader.ConnectTo(*owner);
    reader.ExpectReadsPoolOf(peer);
    std::vector<Outcome> outcomes(8);
    for (Outcome& outcome : outcomes) reader.Start(peer, outcome);
    if (round % 4 > 0) outcomes[round % 4 - 1].Wait();
    owner->Kill();
    for (Outcome& outcome : outcomes) {
      const Statuses statuses = outcome.Wait();
      ExpectOkOrUnavailable(statuses);
      lost += !statuses.back().ok();
    }
    for (const absl::Status& status : reader.Read(peer)) EXPECT_EQ(status.code(), kUnavailable);
  }
  EXPECT_GT(lost, 0) << "no owner was killed in the middle";
}

// What took the owner down with UCX: readers that go in the middle of a read.
TEST(TcpProcesses, AnOwnerOutlivesReadersKilledInTheMiddle) {
  Node owner;
  Node other;
  const auto peer = other.Connect(owner.address());
  ASSERT_TRUE(peer.ok());
  for (int round = 0; round < kKills; ++round) {
    auto child = StartChild("reader");
    ASSERT_TRUE(child->channel().SendAddress(owner.address()).ok());
    for (int i = 0; i <= round % 3; ++i) ASSERT_TRUE(child->channel().Receive(kLimit).ok());
    child->Kill();
    other.ExpectReadsPoolOf(*peer);
  }
}

TEST(TcpProcesses, AConnectToAKilledOwnerFails) {
  Node reader;
  auto owner = StartChild("owner");
  const auto address = owner->channel().ReceiveAddress(kLimit);
  ASSERT_TRUE(address.ok());
  owner->Kill();
  EXPECT_EQ(reader.Connect(*address).status().code(), kUnavailable);
}

TEST(TcpProcesses, OfAStoppedOwnerADeadlineEndsInTimeAndTheRestIsReadAfterwards) {
  Node reader(TcpOptions{});
  auto owner = StartChild("owner");
  const PeerId peer = reader.ConnectTo(*owner);
  Stop(*owner);
  std::vector<Outcome> outcomes(3);
  for (Outcome& outcome : outcomes) reader.Start(peer, outcome, absl::Milliseconds(200));
  for (Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.Wait().back().code(), kDeadlineExceeded);
  }
  // The answers to those come first and go nowhere.
  owner->Signal(SIGCONT);
  for (int i = 0; i < 3; ++i) reader.ExpectReadsPoolOf(peer);
}

TEST(TcpProcesses, AStoppedOwnerIsGivenUpAfterTheStallTimeout) {
  Node reader;
  auto owner = StartChild("owner");
  const PeerId peer = reader.ConnectTo(*owner);
  Stop(*owner);
  const absl::Time begin = SteadyNow();
  EXPECT_EQ(reader.Read(peer).back().code(), kUnavailable);
  EXPECT_GE(SteadyNow() - begin, kStall);
  owner->Signal(SIGCONT);
}

// By hand, what a stranger or a broken peer may do.
class TcpStranger : public testing::Test {
 protected:
  TcpStranger() : owner_({.connect_timeout = absl::Seconds(1), .stall_timeout = kStall}) {}

  TcpSocket Dial(const TcpToken& token) {
    TcpAddress address = owner_.tcp_address();
    address.token = token;
    auto socket = DialTcp(address, SteadyNow() + kLimit);
    CHECK(socket.ok()) << socket.status();
    return *std::move(socket);
  }
  TcpSocket DialGood() { return Dial(owner_.tcp_address().token); }
  static void Ask(const TcpSocket& socket, const TcpRequest& request) {
    ASSERT_TRUE(SendAll(socket, &request, sizeof(request), SteadyNow() + kLimit).ok());
  }
  static TcpResponseHead Answer(const TcpSocket& socket) {
    TcpResponseHead head;
    EXPECT_TRUE(ReceiveAll(socket, &head, sizeof(head), SteadyNow() + kLimit).ok());
    return head;
  }
  // Takes nothing, until the owner resets the connection.
  static void ExpectIsReset(const TcpSocket& socket) {
    pollfd waited{socket.fd(), 0, 0};
    EXPECT_EQ(poll(&waited, 1, static_cast<int>(kLimit / absl::Milliseconds(1))), 1)
        << "the owner does not reset the connection";
  }
  // Reads and drops until the owner closes the connection.
  static void ExpectIsClosed(const TcpSocket& socket) {
    std::vector<std::byte> ignored(kBlock);
    const absl::Time end = SteadyNow() + kLimit;
    while (SteadyNow() < end) {
      pollfd waited{socket.fd(), POLLIN, 0};
      ASSERT_GT(poll(&waited, 1, static_cast<int>(kLimit / absl::Milliseconds(1))), 0);
      const ssize_t n = recv(socket.fd(), ignored.data(), ignored.size(), 0);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
    }
    FAIL() << "the owner does not close the connection";
  }
  void ExpectServes() {
    Node reader;
    const auto peer = reader.Connect(owner_.address());
    ASSERT_TRUE(peer.ok()) << peer.status();
    reader.ExpectReadsPoolOf(*peer);
  }

  Node owner_;
};

TEST_F(TcpStranger, WithoutTheTokenIsTurnedAway) {
  TcpAddress address = owner_.tcp_address();
  address.token[1] ^= 1;
  EXPECT_EQ(DialTcp(address, SteadyNow() + kLimit).status().code(), kUnavailable);
  ExpectServes();
}

TEST_F(TcpStranger, WhoSaysNothingIsClosed) {
  // Connects by a plain call, for DialTcp greets.
  const TcpSocket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(owner_.tcp_address().port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(socket.fd(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  ExpectIsClosed(socket);
  ExpectServes();
}

TEST_F(TcpStranger, GetsAnErrorForWhatIsOutOfBounds) {
  const TcpSocket socket = DialGood();
  const TcpRequest bad[] = {{.id = 1, .offset = kPoolBytes, .size = 1},
                            {.id = 2, .offset = ~uint64_t{0}, .size = 2},
                            {.id = 3, .offset = 1, .size = ~uint64_t{0}},
                            {.id = 4, .size = kPoolBytes + 1}};
  for (const TcpRequest& request : bad) {
    Ask(socket, request);
    const TcpResponseHead head = Answer(socket);
    EXPECT_EQ(head.id, request.id);
    EXPECT_EQ(head.size, 0u);
    EXPECT_EQ(head.code, TcpCode::kOutOfBounds);
  }
  for (const uint64_t region : {uint64_t{99}, ~uint64_t{0}}) {
    Ask(socket, {.id = 9, .size = 1, .region = region});
    EXPECT_EQ(Answer(socket).code, TcpCode::kGone);
  }
  ExpectServes();
}

// Asks for gigabytes, many at a time, and takes none.
TEST_F(TcpStranger, WhoTakesNothingIsClosedAndNobodyWaitsForIt) {
  const TcpSocket socket = DialGood();
  uint64_t id = 0;
  while (true) {
    const TcpRequest request{.id = ++id, .size = kPoolBytes};
    const ssize_t n = send(socket.fd(), &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n != sizeof(request)) break;
    if (id == 100'000) break;
  }
  ExpectServes();
  // Its pool can be freed meanwhile.
  owner_.FreePool();
  ExpectIsReset(socket);
}

TEST_F(TcpStranger, ARegionFreedInTheMiddleOfAnAnswerSaysSoAtItsEnd) {
  const TcpSocket socket = DialGood();
  // More than the kernel's buffers take.
  for (uint64_t id = 1; id <= 8; ++id) Ask(socket, {.id = id, .size = kPoolBytes});
  EXPECT_EQ(Answer(socket).code, TcpCode::kOk);
  owner_.FreePool();
  std::vector<std::byte> body(kPoolBytes);
  bool gone = false;
  for (uint64_t id = 1; id <= 8; ++id) {
    if (id > 1 && Answer(socket).size == 0) {
      gone = true;
      continue;
    }
    TcpTail tail;
    ASSERT_TRUE(ReceiveAll(socket, body.data(), body.size(), SteadyNow() + kLimit).ok());
    ASSERT_TRUE(ReceiveAll(socket, &tail, sizeof(tail), SteadyNow() + kLimit).ok());
    if (gone) {
      EXPECT_EQ(tail.code, TcpCode::kGone);
    }
    gone |= tail.code == TcpCode::kGone;
  }
  EXPECT_TRUE(gone);
}

TEST_F(TcpStranger, GarbageAfterTheGreetingHarmsNobody) {
  Random random(3);
  for (int round = 0; round < 20; ++round) {
    const TcpSocket socket = DialGood();
    std::vector<std::byte> garbage(random.UniformInt(1, 4096));
    random.Fill(garbage);
    ASSERT_TRUE(SendAll(socket, garbage.data(), garbage.size(), SteadyNow() + kLimit).ok());
  }
  ExpectServes();
}

TEST(TcpServer, TurnsAwayWhatIsBeyondItsConnections) {
  Node owner({.max_connections = 2});
  Node reader;
  ASSERT_TRUE(reader.Connect(owner.address()).ok());
  const auto second = reader.Connect(owner.address());
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(reader.Connect(owner.address()).status().code(), kUnavailable);
  reader.ExpectReadsPoolOf(*second);
}

// An owner that answers nonsense, by a socket of our own.
TEST(TcpReader, AnOwnerThatDoesNotKeepToTheProtocolIsLost) {
  const TcpResponseHead kNonsense[] = {{.id = 7, .size = kBlock},
                                       {.id = 2, .size = kBlock + 1},
                                       {.id = 2, .size = kBlock, .code = TcpCode::kGone}};
  for (const TcpResponseHead& nonsense : kNonsense) {
    Node reader;
    const TcpSocket listener = *ListenOnTcp("127.0.0.1", 0);
    const TcpAddress address{.host = "127.0.0.1", .port = listener.port(), .token = {1, 2}};
    std::thread owner([&] {
      const absl::Time end = SteadyNow() + kLimit;
      pollfd waited{listener.fd(), POLLIN, 0};
      ASSERT_GT(poll(&waited, 1, static_cast<int>(kLimit / absl::Milliseconds(1))), 0);
      const TcpSocket socket = *AcceptTcp(listener);
      TcpHello hello;
      TcpRequest request;
      const TcpHelloReply reply;
      const TcpResponseHead there{.id = 1};
      ASSERT_TRUE(ReceiveAll(socket, &hello, sizeof(hello), end).ok());
      ASSERT_TRUE(SendAll(socket, &reply, sizeof(reply), end).ok());
      ASSERT_TRUE(ReceiveAll(socket, &request, sizeof(request), end).ok());
      ASSERT_TRUE(SendAll(socket, &there, sizeof(there), end).ok());
      ASSERT_TRUE(ReceiveAll(socket, &request, sizeof(request), end).ok());
      ASSERT_TRUE(SendAll(socket, &nonsense, sizeof(nonsense), end).ok());
      while (ReceiveAll(socket, &request, sizeof(request), end).ok()) {
      }
    });
    const auto peer = reader.Connect(
        {EncodeTcpAddress(address),
         {EncodeTcpRegion({.index = 0, .size = kPoolBytes, .token = address.token})}});
    EXPECT_TRUE(peer.ok()) << peer.status();
    if (peer.ok()) {
      EXPECT_EQ(reader.Read(*peer).front().code(), kUnavailable);
    }
    owner.join();
  }
}

}  // namespace

int Main(int argc, char** argv) {
  if (auto child = ChildRole::FromArguments(argc, argv)) {
    if (child->role == "owner") RunOwner(*child->channel);
    if (child->role == "reader") RunReader(*child->channel);
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace tarn

int main(int argc, char** argv) { return tarn::Main(argc, argv); }
