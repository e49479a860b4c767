// UcxTransport between processes that are killed, stopped and restarted.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/shm.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/child_process.h"
#include "common/transport/ucx/ucx_transport.h"

namespace tarn {
namespace {

constexpr size_t kPoolBytes = size_t{8} << 20;
constexpr size_t kBlock = size_t{64} << 10;
constexpr size_t kBlocks = kPoolBytes / kBlock;
constexpr absl::Duration kLimit = absl::Seconds(60);

using enum absl::StatusCode;

// The outcome of one batch, or of anything else that is waited for.
class Outcome {
 public:
  void Set(std::vector<absl::Status> statuses) {
    MutexLock lock(mutex_);
    ++times_;
    statuses_ = std::move(statuses);
    changed_.notify_all();
  }
  std::vector<absl::Status> Wait() {
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
  std::vector<absl::Status> statuses_ ABSL_GUARDED_BY(mutex_);
};

// A transport with a pool that peers read, and one to read into.
class Node {
 public:
  explicit Node(const std::string& tls) {
    auto transport = UcxTransport::Create({.tls = tls}, loop_);
    CHECK(transport.ok()) << transport.status();
    transport_ = *std::move(transport);
    pool_ = Allocate();
    target_ = Allocate();
  }

  std::span<std::byte> pool() { return pool_->bytes(); }
  std::span<std::byte> target() { return target_->bytes(); }
  PeerAddress address() const { return {transport_->Address(), {pool_->descriptor()}}; }
  absl::StatusOr<PeerId> Connect(const PeerAddress& peer) { return transport_->Connect(peer); }

  // Starts to read all blocks of the peer's pool.
  void Start(PeerId peer, Outcome& outcome) {
    ReadBatch batch;
    for (size_t at = 0; at < kPoolBytes; at += kBlock) {
      batch.ops.push_back({RegionIndex(0), at, target().subspan(at, kBlock)});
    }
    loop_.Post([this, peer, batch = std::move(batch), &outcome]() mutable {
      transport_->Read(peer, std::move(batch),
                       [&outcome](auto statuses) { outcome.Set(std::move(statuses)); });
    });
  }
  std::vector<absl::Status> Read(PeerId peer) {
    Outcome outcome;
    Start(peer, outcome);
    return outcome.Wait();
  }

 private:
  std::unique_ptr<RegisteredMemory> Allocate() {
    auto memory = transport_->Allocate(kPoolBytes);
    CHECK(memory.ok()) << memory.status();
    return *std::move(memory);
  }

  RealEventLoop loop_{"node"};
  std::unique_ptr<UcxTransport> transport_;
  std::unique_ptr<RegisteredMemory> pool_;
  std::unique_ptr<RegisteredMemory> target_;
};

// The role "owner TLS": a pool of Random(1), until the parent has gone.
void RunOwner(Channel& channel, const std::string& tls) {
  Node node(tls);
  Random(1).Fill(node.pool());
  if (!channel.SendAddress(node.address()).ok()) return;
  (void)channel.Receive(absl::InfiniteDuration());
}

// The role "reader TLS": reads the parent's pool over and over; says so after the first time.
void RunReader(Channel& channel, const std::string& tls) {
  Node node(tls);
  const auto address = channel.ReceiveAddress(kLimit);
  CHECK(address.ok()) << address.status();
  const auto peer = node.Connect(*address);
  CHECK(peer.ok()) << peer.status();
  while (true) {
    for (const absl::Status& status : node.Read(*peer)) CHECK(status.ok()) << status;
    if (!channel.Send("read").ok()) return;
  }
}

// The role "small BYTES": a machine with so much shared memory of each kind, as a container may be.
// Reports the outcome of Create or, if that is OK, of Allocate for twice as much.
void RunSmall(Channel& channel, size_t bytes) {
  const std::string size = "size=" + std::to_string(bytes);
  if (unshare(CLONE_NEWUSER | CLONE_NEWIPC | CLONE_NEWNS) != 0 ||
      mount("none", "/dev/shm", "tmpfs", 0, size.c_str()) != 0 ||
      !(std::ofstream("/proc/sys/kernel/shmmax") << bytes).flush()) {
    CHECK(channel.Send("namespaces are not allowed here").ok());
    return;
  }
  RealEventLoop loop("small");
  const auto transport = UcxTransport::Create({}, loop);
  if (!transport.ok()) {
    CHECK(channel.Send(transport.status().ToString()).ok());
    return;
  }
  const auto large = (*transport)->Allocate(2 * bytes);
  const auto small = (*transport)->Allocate(bytes / 4);
  CHECK(small.ok()) << small.status();
  CHECK(channel.Send(large.status().ToString()).ok());
}

// What UCX has in /dev/shm, of whatever process: its names do not tell.
std::set<std::string> FilesInDevShm() {
  std::set<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator("/dev/shm")) {
    if (file.path().filename().string().find("ucx") == 0) names.insert(file.path());
  }
  return names;
}

// System V segments that a process has made and that somebody still holds, or nobody removed.
int SegmentsOf(pid_t pid) {
  int count = 0;
  shm_info info{};
  const int last = shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  for (int i = 0; i <= last; ++i) {
    shmid_ds segment{};
    if (shmctl(i, SHM_STAT, &segment) >= 0 && segment.shm_cpid == pid) ++count;
  }
  return count;
}

// Files of other processes on this machine come and go; what is left behind stays.
bool AllGoAway(std::set<std::string> names) {
  const absl::Time end = SteadyNow() + kLimit;
  while (!names.empty() && SteadyNow() < end) {
    const std::set<std::string> present = FilesInDevShm();
    std::erase_if(names, [&](const std::string& name) { return !present.contains(name); });
  }
  return names.empty();
}

// By UCX_TLS: what is chosen by itself, and each kind of shared memory alone.
class UcxProcesses : public testing::TestWithParam<std::string> {
 protected:
  UcxProcesses() : reader_(std::make_unique<Node>(GetParam())) {}

  std::unique_ptr<ChildProcess> Start(const std::string& role) {
    auto child = ChildProcess::Start(role + " " + GetParam());
    CHECK(child.ok()) << child.status();
    return *std::move(child);
  }
  PeerId ConnectTo(ChildProcess& owner) {
    const auto address = owner.channel().ReceiveAddress(kLimit);
    EXPECT_TRUE(address.ok()) << address.status();
    const auto peer = reader_->Connect(*address);
    EXPECT_TRUE(peer.ok()) << peer.status();
    return peer.ok() ? *peer : PeerId();
  }
  void ExpectReadsPoolOf(PeerId peer) {
    std::memset(reader_->target().data(), 0, kPoolBytes);
    for (const absl::Status& status : reader_->Read(peer)) EXPECT_TRUE(status.ok()) << status;
    std::vector<std::byte> expected(kPoolBytes);
    Random(1).Fill(expected);
    EXPECT_EQ(std::memcmp(reader_->target().data(), expected.data(), kPoolBytes), 0);
  }
  // Reads until one ends with UNAVAILABLE: the loss is seen within the keepalive.
  void ExpectBecomesUnavailable(PeerId peer) {
    const absl::Time end = SteadyNow() + kLimit;
    while (SteadyNow() < end) {
      for (const absl::Status& status : reader_->Read(peer)) {
        if (status.code() == kUnavailable) return;
        ASSERT_TRUE(status.ok()) << status;
      }
    }
    FAIL() << "the loss of a killed process is not seen";
  }

  std::unique_ptr<Node> reader_;
};

TEST_P(UcxProcesses, AKilledOwnerEndsEveryReadAndARestartedOneIsRead) {
  auto owner = Start("owner");
  const PeerId peer = ConnectTo(*owner);
  ExpectReadsPoolOf(peer);
  std::vector<Outcome> outcomes(16);
  for (Outcome& outcome : outcomes) reader_->Start(peer, outcome);
  owner->Kill();
  for (Outcome& outcome : outcomes) {
    const auto statuses = outcome.Wait();
    ASSERT_EQ(statuses.size(), kBlocks);
    for (const absl::Status& status : statuses) {
      EXPECT_TRUE(status.ok() || status.code() == kUnavailable) << status;
    }
  }
  ExpectBecomesUnavailable(peer);
  for (const absl::Status& status : reader_->Read(peer)) EXPECT_EQ(status.code(), kUnavailable);

  auto restarted = Start("owner");
  ExpectReadsPoolOf(ConnectTo(*restarted));
}

TEST_P(UcxProcesses, AConnectToAKilledOwnerFails) {
  auto owner = Start("owner");
  const auto address = owner->channel().ReceiveAddress(kLimit);
  ASSERT_TRUE(address.ok());
  owner->Kill();
  EXPECT_EQ(reader_->Connect(*address).status().code(), kUnavailable);
}

// A pool of a killed process that stayed would take the memory of the one that replaces it.
TEST_P(UcxProcesses, NothingIsLeftOfAKilledOwner) {
  const std::set<std::string> before = FilesInDevShm();
  auto owner = Start("owner");
  const PeerId peer = ConnectTo(*owner);
  ExpectReadsPoolOf(peer);
  if (GetParam() != "posix,self") {
    EXPECT_GT(SegmentsOf(owner->pid()), 0);
  }
  std::set<std::string> made = FilesInDevShm();
  std::erase_if(made, [&](const std::string& name) { return before.contains(name); });
  owner->Kill();
  ExpectBecomesUnavailable(peer);
  reader_.reset();
  EXPECT_EQ(SegmentsOf(owner->pid()), 0);
  EXPECT_TRUE(AllGoAway(std::move(made)));
}

// The point of one-sided reads: the owner's CPU has no part in them.
TEST_P(UcxProcesses, AStoppedOwnerIsReadAllTheSame) {
  auto owner = Start("owner");
  const PeerId peer = ConnectTo(*owner);
  owner->Signal(SIGSTOP);
  for (int i = 0; i < 4; ++i) ExpectReadsPoolOf(peer);
  owner->Signal(SIGCONT);
  ExpectReadsPoolOf(peer);
  EXPECT_TRUE(owner->Alive());
}

TEST_P(UcxProcesses, AnOwnerOutlivesKilledReaders) {
  Random(7).Fill(reader_->pool());
  for (int i = 0; i < 3; ++i) {
    auto child = Start("reader");
    ASSERT_TRUE(child->channel().SendAddress(reader_->address()).ok());
    ASSERT_TRUE(child->channel().Receive(kLimit).ok());
    child->Kill();
    EXPECT_EQ(SegmentsOf(child->pid()), 0);
  }
  auto child = Start("reader");
  ASSERT_TRUE(child->channel().SendAddress(reader_->address()).ok());
  EXPECT_TRUE(child->channel().Receive(kLimit).ok());
  EXPECT_TRUE(child->channel().Receive(kLimit).ok());
}

// 32 MiB: for a worker, but not for the region. 256 KiB: not for a worker.
TEST(UcxSharedMemory, WhatDoesNotFitIsRefusedWithTheLimitsInTheWay) {
  for (const size_t bytes : {size_t{32} << 20, size_t{256} << 10}) {
    auto child = ChildProcess::Start("small " + std::to_string(bytes));
    ASSERT_TRUE(child.ok()) << child.status();
    const auto outcome = (*child)->channel().Receive(kLimit);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    if (outcome->find("namespaces") == 0) GTEST_SKIP() << *outcome;
    EXPECT_EQ(outcome->find("RESOURCE_EXHAUSTED"), 0u) << *outcome;
    EXPECT_NE(outcome->find(std::to_string(bytes) + " bytes (kernel.shmmax)"), std::string::npos)
        << *outcome;
    EXPECT_NE(outcome->find("/dev/shm"), std::string::npos) << *outcome;
  }
}

INSTANTIATE_TEST_SUITE_P(Default, UcxProcesses, testing::Values("^tcp"));
INSTANTIATE_TEST_SUITE_P(SystemV, UcxProcesses, testing::Values("sysv,self"));
INSTANTIATE_TEST_SUITE_P(Posix, UcxProcesses, testing::Values("posix,self"));

}  // namespace

int Main(int argc, char** argv) {
  if (auto child = ChildRole::FromArguments(argc, argv)) {
    const std::string tls = child->role.substr(child->role.find(' ') + 1);
    const std::string role = child->role.substr(0, child->role.find(' '));
    if (role == "owner") RunOwner(*child->channel, tls);
    if (role == "reader") RunReader(*child->channel, tls);
    if (role == "small") RunSmall(*child->channel, std::stoul(tls));
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace tarn

int main(int argc, char** argv) { return tarn::Main(argc, argv); }
