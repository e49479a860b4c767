#pragma once

// What every Transport does, as tests. Include it in one test file and say over what to run:
//
//   INSTANTIATE_TEST_SUITE_P(Loopback, TransportConformance, testing::Values(&MakeHarness));

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/transport.h"

namespace tarn {

// Makes transports that reach each other, all on one loop.
class TransportHarness {
 public:
  virtual ~TransportHarness() = default;
  virtual std::unique_ptr<Transport> Make(EventLoop& loop) = 0;
  // Whether a read that has been verified may still end as its batch does. So it is over a network,
  // where one look behind the last read says whether the region was there all the time.
  virtual bool LooksAtRegionsLast() const { return false; }
};

using HarnessFactory = std::unique_ptr<TransportHarness> (*)();

class TransportConformance : public testing::TestWithParam<HarnessFactory> {
 protected:
  static constexpr auto kLimit = std::chrono::seconds(120);

  // The outcome of one Read; set on the loop, waited for by the test.
  class Outcome {
   public:
    void Set(std::vector<absl::Status> statuses) {
      MutexLock lock(mutex_);
      ++times_;
      statuses_ = std::move(statuses);
      changed_.notify_all();
    }
    bool IsSet() {
      MutexLock lock(mutex_);
      return times_ > 0;
    }
    int times() {
      MutexLock lock(mutex_);
      return times_;
    }
    // Empty if it does not come in time.
    std::vector<absl::Status> Wait() {
      const auto end = std::chrono::steady_clock::now() + kLimit;
      MutexLock lock(mutex_);
      while (times_ == 0) {
        if (changed_.wait_until(mutex_, end) == std::cv_status::timeout) break;
      }
      EXPECT_GT(times_, 0) << "done did not run";
      return statuses_;
    }

   private:
    Mutex mutex_;
    ConditionVariable changed_;
    int times_ ABSL_GUARDED_BY(mutex_) = 0;
    std::vector<absl::Status> statuses_ ABSL_GUARDED_BY(mutex_);
  };

  // A transport with one region of random bytes to read from, and one to read into.
  struct Node {
    std::unique_ptr<Transport> transport;
    std::unique_ptr<RegisteredMemory> pool;
    std::unique_ptr<RegisteredMemory> target;

    PeerAddress address() const { return {transport->Address(), {pool->descriptor()}}; }
    void Die() {
      pool.reset();
      target.reset();
      transport.reset();
    }
  };

  // What came for one op, by a TestArrival; outlives it.
  struct TakenBytes {
    std::span<std::byte> to;
    absl::Status verdict;
    std::function<void()> on_first;
    size_t size = 0;
    int finished = 0;
  };
  class TestArrival : public Arrival {
   public:
    explicit TestArrival(TakenBytes& taken) : taken_(taken) {}
    void Copy(std::span<const std::byte> from) override {
      std::memcpy(taken_.to.data() + taken_.size, from.data(), from.size());
      Placed(from.size());
    }
    void Placed(size_t size) override {
      if (taken_.size == 0 && taken_.on_first) taken_.on_first();
      taken_.size += size;
    }
    absl::Status Finish() override {
      ++taken_.finished;
      return taken_.verdict;
    }

   private:
    TakenBytes& taken_;
  };

  TransportConformance() : harness_(GetParam()()) {}
  ~TransportConformance() override { loop_.Stop(); }

  Node MakeNode(size_t bytes, uint64_t seed) {
    Node node{.transport = harness_->Make(loop_)};
    auto pool = node.transport->Allocate(bytes);
    auto target = node.transport->Allocate(bytes);
    EXPECT_TRUE(pool.ok() && target.ok()) << pool.status() << target.status();
    node.pool = *std::move(pool);
    node.target = *std::move(target);
    Random(seed).Fill(node.pool->bytes());
    return node;
  }

  PeerId Connect(Node& reader, const Node& owner) {
    const auto peer = reader.transport->Connect(owner.address());
    EXPECT_TRUE(peer.ok()) << peer.status();
    return peer.ok() ? *peer : PeerId();
  }

  // Runs `task` on the loop and waits for it.
  void OnLoop(const std::function<void()>& task) {
    Outcome ran;
    loop_.Post([&] {
      task();
      ran.Set({});
    });
    ran.Wait();
  }

  // Starts a read; `outcome` outlives it.
  TransferId Start(Transport& transport, PeerId peer, ReadBatch batch, Outcome& outcome) {
    TransferId id = 0;
    OnLoop([&] {
      id = transport.Read(peer, std::move(batch), [this, &outcome](auto statuses) {
        EXPECT_TRUE(loop_.OnLoop());
        outcome.Set(std::move(statuses));
      });
      EXPECT_FALSE(outcome.IsSet()) << "done ran inside Read";
    });
    return id;
  }

  std::vector<absl::Status> Read(Transport& transport, PeerId peer, ReadBatch batch) {
    Outcome outcome;
    Start(transport, peer, std::move(batch), outcome);
    return outcome.Wait();
  }

  static ReadOp Op(const Node& reader, uint64_t offset, uint64_t to, size_t size) {
    return {RegionIndex(0), offset, reader.target->bytes().subspan(to, size)};
  }

  // `count` reads of `size` bytes each, in order.
  static ReadBatch Batch(const Node& reader, size_t count, size_t size) {
    ReadBatch batch;
    for (size_t i = 0; i < count; ++i) batch.ops.push_back(Op(reader, i * size, i * size, size));
    return batch;
  }

  static void ExpectCodes(const std::vector<absl::Status>& statuses,
                          const std::vector<absl::StatusCode>& codes) {
    ASSERT_EQ(statuses.size(), codes.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      EXPECT_EQ(statuses[i].code(), codes[i]) << "op " << i << ": " << statuses[i];
    }
  }

  // As `AllOk`, but each op may also have ended with one of `others`.
  static void ExpectOkOr(const std::vector<absl::Status>& statuses, size_t count,
                         std::initializer_list<absl::StatusCode> others) {
    ASSERT_EQ(statuses.size(), count);
    for (const absl::Status& status : statuses) {
      bool expected = status.ok();
      for (const absl::StatusCode other : others) expected |= status.code() == other;
      EXPECT_TRUE(expected) << status;
    }
  }
  static void ExpectAllOk(const std::vector<absl::Status>& statuses, size_t count) {
    ExpectOkOr(statuses, count, {});
  }

  // Runs `task` on the loop from inside `verify`, which runs there itself or on another thread.
  void OnLoopFromVerify(const std::function<void()>& task) {
    loop_.OnLoop() ? task() : OnLoop(task);
  }

  // Reads 16 ops, and does `interrupt` on the loop while the first of them is verified: that one is
  // OK, all others end with `code`.
  void ExpectInterrupted(absl::StatusCode code,
                         const std::function<void(Node&, PeerId, TransferId)>& interrupt) {
    constexpr size_t kCount = 16;
    Node owner = MakeNode(1 << 16, 1);
    Node reader = MakeNode(1 << 16, 2);
    const PeerId peer = Connect(reader, owner);
    Outcome outcome;
    std::vector<size_t> verified;
    TransferId id = 0;
    ReadBatch batch = Batch(reader, kCount, 1 << 12);
    batch.verify = [&](size_t i) {
      verified.push_back(i);
      if (verified.size() == 1) OnLoopFromVerify([&] { interrupt(reader, peer, id); });
      return absl::OkStatus();
    };
    OnLoop([&] {
      id = reader.transport->Read(peer, std::move(batch),
                                  [&](auto statuses) { outcome.Set(std::move(statuses)); });
    });
    std::vector<absl::StatusCode> codes(kCount, code);
    const auto statuses = outcome.Wait();
    ASSERT_EQ(verified.size(), 1u);
    ExpectCodesButOk(statuses, std::move(codes), verified[0]);
  }

  // As `codes`, but `index` was verified before they came about.
  void ExpectCodesButOk(const std::vector<absl::Status>& statuses,
                        std::vector<absl::StatusCode> codes, size_t index) {
    const bool may_be_late =
        harness_->LooksAtRegionsLast() && index < statuses.size() && !statuses[index].ok();
    if (!may_be_late) codes[index] = absl::StatusCode::kOk;
    ExpectCodes(statuses, codes);
  }

  static bool Equal(std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
  }

  RealEventLoop loop_{"transport-test"};
  std::unique_ptr<TransportHarness> harness_;
};

TEST_P(TransportConformance, AllocatesZeroedAlignedMemory) {
  auto transport = harness_->Make(loop_);
  const auto first = transport->Allocate(5000);
  const auto second = transport->Allocate(1 << 20);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ((*first)->index(), RegionIndex(0));
  EXPECT_EQ((*second)->index(), RegionIndex(1));
  EXPECT_EQ((*first)->bytes().size(), 5000u);
  for (const auto* region : {&*first, &*second}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*region)->bytes().data()) % 4096, 0u);
    for (const std::byte byte : (*region)->bytes()) ASSERT_EQ(byte, std::byte{0});
  }
}

TEST_P(TransportConformance, AllocateRefusesWhatCannotBe) {
  auto transport = harness_->Make(loop_);
  EXPECT_EQ(transport->Allocate(0).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status huge = transport->Allocate(size_t{1} << 62).status();
  EXPECT_EQ(huge.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(Message(huge).find(std::to_string(size_t{1} << 62).substr(0, 8)), std::string::npos)
      << huge;
}

TEST_P(TransportConformance, ReadsTheBytesOfAPeer) {
  Node owner = MakeNode(1 << 20, 1);
  Node reader = MakeNode(1 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 16, 1 << 16)), 16);
  EXPECT_TRUE(Equal(reader.target->bytes(), owner.pool->bytes()));
}

TEST_P(TransportConformance, SeesWhatTheOwnerWroteAfterConnect) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  for (uint64_t round = 0; round < 5; ++round) {
    Random(round + 100).Fill(owner.pool->bytes());
    ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 1, 1 << 16)), 1);
    EXPECT_TRUE(Equal(reader.target->bytes(), owner.pool->bytes()));
  }
}

TEST_P(TransportConformance, ReadsAnyOffsetAndSizeAndNothingBeside) {
  Node owner = MakeNode(1 << 18, 1);
  Node reader = MakeNode(1 << 18, 2);
  const PeerId peer = Connect(reader, owner);
  Random random(3);
  for (int round = 0; round < 50; ++round) {
    const size_t size = random.UniformInt(1, round < 25 ? 300 : 100'000);
    const uint64_t from = random.UniformInt((1 << 18) - size);
    const uint64_t to = random.UniformInt(1, (1 << 18) - size - 1);
    std::memset(reader.target->bytes().data(), 0xa5, reader.target->bytes().size());
    ExpectAllOk(Read(*reader.transport, peer, {.ops = {Op(reader, from, to, size)}}), 1);
    EXPECT_TRUE(
        Equal(reader.target->bytes().subspan(to, size), owner.pool->bytes().subspan(from, size)));
    EXPECT_EQ(reader.target->bytes()[to - 1], std::byte{0xa5});
    EXPECT_EQ(reader.target->bytes()[to + size], std::byte{0xa5});
  }
}

TEST_P(TransportConformance, ReadsSeveralRegionsOfAPeer) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  Random(9).Fill(owner.target->bytes());
  PeerAddress address = owner.address();
  address.regions.push_back(owner.target->descriptor());
  const auto peer = reader.transport->Connect(address);
  ASSERT_TRUE(peer.ok());
  ReadBatch batch{.ops = {Op(reader, 0, 0, 100), Op(reader, 7, 200, 100)}};
  batch.ops[1].region = RegionIndex(1);
  ExpectAllOk(Read(*reader.transport, *peer, std::move(batch)), 2);
  EXPECT_TRUE(Equal(reader.target->bytes().first(100), owner.pool->bytes().first(100)));
  EXPECT_TRUE(
      Equal(reader.target->bytes().subspan(200, 100), owner.target->bytes().subspan(7, 100)));
}

TEST_P(TransportConformance, AnEmptyBatchAndAnEmptyReadEnd) {
  Node owner = MakeNode(4096, 1);
  Node reader = MakeNode(4096, 2);
  const PeerId peer = Connect(reader, owner);
  ExpectAllOk(Read(*reader.transport, peer, {}), 0);
  ExpectAllOk(Read(*reader.transport, peer, {.ops = {Op(reader, 4096, 0, 0)}}), 1);
}

TEST_P(TransportConformance, RefusesWhatIsOutOfBoundsAndDoesTheRest) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 17, 2);
  const PeerId peer = Connect(reader, owner);
  std::vector<std::byte> elsewhere(100);
  ReadBatch batch;
  batch.ops = {Op(reader, 0, 0, 100),
               Op(reader, (1 << 16) - 99, 0, 100),
               Op(reader, 0, 0, (1 << 16) + 1),
               Op(reader, ~uint64_t{0} - 10, 0, 100),
               Op(reader, 0, 0, 100),
               {RegionIndex(0), 0, elsewhere},
               Op(reader, (1 << 16) - 100, 1000, 100)};
  batch.ops[4].region = RegionIndex(1);
  using enum absl::StatusCode;
  ExpectCodes(Read(*reader.transport, peer, std::move(batch)),
              {kOk, kInvalidArgument, kInvalidArgument, kInvalidArgument, kInvalidArgument,
               kInvalidArgument, kOk});
  EXPECT_TRUE(Equal(reader.target->bytes().subspan(1000, 100), owner.pool->bytes().last(100)));
}

TEST_P(TransportConformance, VerifySeesTheBytesAndItsVerdictIsTheStatus) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  ReadBatch batch = Batch(reader, 4, 1 << 14);
  batch.verify = [&](size_t i) {
    const size_t begin = i << 14;
    if (!Equal(reader.target->bytes().subspan(begin, 1 << 14),
               owner.pool->bytes().subspan(begin, 1 << 14))) {
      return absl::InternalError("the bytes are not there yet");
    }
    return i == 2 ? absl::DataLossError("bad block") : absl::OkStatus();
  };
  using enum absl::StatusCode;
  ExpectCodes(Read(*reader.transport, peer, std::move(batch)), {kOk, kOk, kDataLoss, kOk});
}

TEST_P(TransportConformance, AnArrivalTakesEveryByteInOrderAndItsVerdictIsTheStatus) {
  Node owner = MakeNode(2 << 20, 1);
  Node reader = MakeNode(2 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  ReadBatch batch = {.ops = {Op(reader, 0, 0, 1), Op(reader, 100, 4096, 5000),
                             Op(reader, 7, 16384, 1 << 20), Op(reader, 1, 3 << 19, 300'000)}};
  std::vector<TakenBytes> taken(4);
  taken[2].verdict = absl::DataLossError("bad block");
  const std::vector<ReadOp> ops = batch.ops;
  for (size_t i = 0; i < 4; ++i) taken[i].to = ops[i].to;
  batch.arrival = [&](size_t i) { return std::make_unique<TestArrival>(taken[i]); };
  using enum absl::StatusCode;
  ExpectCodes(Read(*reader.transport, peer, std::move(batch)), {kOk, kOk, kDataLoss, kOk});
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(taken[i].finished, 1);
    EXPECT_EQ(taken[i].size, ops[i].to.size());
    EXPECT_TRUE(Equal(ops[i].to, owner.pool->bytes().subspan(ops[i].offset, ops[i].to.size())));
  }
}

// A transport that fuses stops there; one that does not has all bytes by then.
TEST_P(TransportConformance, ACancelWhileAnArrivalTakesBytesLeavesNoOpHalfDone) {
  Node owner = MakeNode(4 << 20, 1);
  Node reader = MakeNode(4 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  Outcome outcome;
  TransferId id = 0;
  ReadBatch batch = Batch(reader, 2, 2 << 20);
  std::vector<TakenBytes> taken(2);
  for (size_t i = 0; i < 2; ++i) taken[i].to = batch.ops[i].to;
  taken[0].on_first = [&] { OnLoopFromVerify([&] { reader.transport->Cancel(id); }); };
  batch.arrival = [&](size_t i) { return std::make_unique<TestArrival>(taken[i]); };
  OnLoop([&] {
    id = reader.transport->Read(peer, std::move(batch),
                                [&](auto statuses) { outcome.Set(std::move(statuses)); });
  });
  const auto statuses = outcome.Wait();
  ASSERT_EQ(statuses.size(), 2u);
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(taken[1].size, 0u);
  const bool whole = taken[0].finished == 1;
  // Where the region is looked at last, what is whole may still end as its batch does.
  if (!absl::IsCancelled(statuses[0]) || !harness_->LooksAtRegionsLast()) {
    EXPECT_EQ(statuses[0].code(), whole ? absl::StatusCode::kOk : absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(taken[0].size == size_t{2} << 20, whole);
}

TEST_P(TransportConformance, ManyReadsInOneBatch) {
  constexpr size_t kCount = 3'000;
  Node owner = MakeNode(kCount * 64, 1);
  Node reader = MakeNode(kCount * 64, 2);
  const PeerId peer = Connect(reader, owner);
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, kCount, 64)), kCount);
  EXPECT_TRUE(Equal(reader.target->bytes(), owner.pool->bytes()));
}

TEST_P(TransportConformance, ManyBatchesAtTheSameTimeInBothDirections) {
  constexpr size_t kBatches = 40;
  Node a = MakeNode(kBatches << 14, 1);
  Node b = MakeNode(kBatches << 14, 2);
  const PeerId b_from_a = Connect(a, b);
  const PeerId a_from_b = Connect(b, a);
  std::vector<Outcome> outcomes(2 * kBatches);
  for (size_t i = 0; i < kBatches; ++i) {
    for (const bool forward : {true, false}) {
      Node& reader = forward ? a : b;
      ReadBatch batch;
      for (size_t op = 0; op < 4; ++op) {
        const size_t offset = (i << 14) + (op << 12);
        batch.ops.push_back(Op(reader, offset, offset, 1 << 12));
      }
      Start(*reader.transport, forward ? b_from_a : a_from_b, std::move(batch),
            outcomes[2 * i + forward]);
    }
  }
  for (Outcome& outcome : outcomes) ExpectAllOk(outcome.Wait(), 4);
  EXPECT_TRUE(Equal(a.target->bytes(), b.pool->bytes()));
  EXPECT_TRUE(Equal(b.target->bytes(), a.pool->bytes()));
}

TEST_P(TransportConformance, ReadsFromItself) {
  Node node = MakeNode(1 << 18, 1);
  const PeerId self = Connect(node, node);
  ExpectAllOk(Read(*node.transport, self, Batch(node, 4, 1 << 16)), 4);
  EXPECT_TRUE(Equal(node.target->bytes(), node.pool->bytes()));
}

TEST_P(TransportConformance, ConnectRefusesGarbage) {
  Node owner = MakeNode(4096, 1);
  Node reader = MakeNode(4096, 2);
  const PeerAddress good = owner.address();
  const auto code = [&](const PeerAddress& address) {
    return reader.transport->Connect(address).status().code();
  };
  using enum absl::StatusCode;
  EXPECT_EQ(code({}), kInvalidArgument);
  EXPECT_EQ(code({"nonsense", good.regions}), kInvalidArgument);
  EXPECT_EQ(code({good.worker, {"nonsense"}}), kInvalidArgument);
  EXPECT_EQ(code({good.worker, {good.regions[0], ""}}), kInvalidArgument);
  EXPECT_EQ(code({good.worker, {good.worker}}), kInvalidArgument);
  EXPECT_EQ(code({good.worker, {good.regions[0].substr(0, 6)}}), kInvalidArgument);
  EXPECT_EQ(code(good), kOk);
}

TEST_P(TransportConformance, ConnectToADeadPeerFails) {
  Node owner = MakeNode(4096, 1);
  Node reader = MakeNode(4096, 2);
  const PeerAddress address = owner.address();
  owner.Die();
  EXPECT_EQ(reader.transport->Connect(address).status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformance, AReadFromNobodyIsUnavailable) {
  Node reader = MakeNode(4096, 2);
  ExpectCodes(Read(*reader.transport, PeerId(77), Batch(reader, 1, 64)),
              {absl::StatusCode::kUnavailable});
}

TEST_P(TransportConformance, ReadsAfterDisconnectAreUnavailable) {
  Node owner = MakeNode(4096, 1);
  Node reader = MakeNode(4096, 2);
  const PeerId peer = Connect(reader, owner);
  OnLoop([&] {
    reader.transport->Disconnect(peer);
    reader.transport->Disconnect(peer);
  });
  ExpectCodes(Read(*reader.transport, peer, Batch(reader, 1, 64)),
              {absl::StatusCode::kUnavailable});
  const PeerId again = Connect(reader, owner);
  EXPECT_NE(again, peer);
  ExpectAllOk(Read(*reader.transport, again, Batch(reader, 1, 64)), 1);
}

TEST_P(TransportConformance, DisconnectEndsReadsUnderWay) {
  Node owner = MakeNode(1 << 20, 1);
  Node reader = MakeNode(1 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  Outcome outcome;
  Start(*reader.transport, peer, Batch(reader, 256, 1 << 12), outcome);
  OnLoop([&] { reader.transport->Disconnect(peer); });
  ExpectOkOr(outcome.Wait(), 256, {absl::StatusCode::kUnavailable});
}

TEST_P(TransportConformance, DisconnectBetweenOpsLeavesTheFirstDone) {
  ExpectInterrupted(absl::StatusCode::kUnavailable, [](Node& reader, PeerId peer, TransferId) {
    reader.transport->Disconnect(peer);
  });
}

TEST_P(TransportConformance, CancelBetweenOpsLeavesTheFirstDone) {
  ExpectInterrupted(absl::StatusCode::kCancelled,
                    [](Node& reader, PeerId, TransferId id) { reader.transport->Cancel(id); });
}

TEST_P(TransportConformance, CancelOfAnotherTransferDoesNotDisturb) {
  ExpectInterrupted(absl::StatusCode::kCancelled, [](Node& reader, PeerId, TransferId id) {
    reader.transport->Cancel(id + 1);
    reader.transport->Cancel(id);
  });
}

TEST_P(TransportConformance, CancelEndsABatchOnce) {
  Node owner = MakeNode(4 << 20, 1);
  Node reader = MakeNode(4 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  Outcome outcome;
  OnLoop([&] {
    const TransferId id = reader.transport->Read(peer, Batch(reader, 1024, 1 << 12),
                                                 [&](auto s) { outcome.Set(std::move(s)); });
    reader.transport->Cancel(id);
    reader.transport->Cancel(id);
    reader.transport->Cancel(id + 1'000);
  });
  const auto statuses = outcome.Wait();
  ExpectOkOr(statuses, 1024, {absl::StatusCode::kCancelled});
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 4, 1 << 12)), 4);
  EXPECT_EQ(outcome.times(), 1);
}

TEST_P(TransportConformance, CancelAfterTheEndIsHarmless) {
  Node owner = MakeNode(4096, 1);
  Node reader = MakeNode(4096, 2);
  const PeerId peer = Connect(reader, owner);
  Outcome outcome;
  const TransferId id = Start(*reader.transport, peer, Batch(reader, 1, 64), outcome);
  ExpectAllOk(outcome.Wait(), 1);
  OnLoop([&] { reader.transport->Cancel(id); });
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 1, 64)), 1);
  EXPECT_EQ(outcome.times(), 1);
}

TEST_P(TransportConformance, ADeadlineInThePastEndsABatch) {
  Node owner = MakeNode(4 << 20, 1);
  Node reader = MakeNode(4 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  ReadBatch batch = Batch(reader, 1024, 1 << 12);
  batch.deadline = loop_.Now() - absl::Seconds(1);
  ExpectCodes(Read(*reader.transport, peer, std::move(batch)),
              std::vector(1024, absl::StatusCode::kDeadlineExceeded));
}

TEST_P(TransportConformance, ADeadlineBetweenOpsEndsTheRest) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  ReadBatch batch = Batch(reader, 16, 1 << 12);
  const absl::Time deadline = loop_.Now() + absl::Milliseconds(50);
  batch.deadline = deadline;
  std::vector<size_t> verified;
  batch.verify = [&](size_t i) {
    verified.push_back(i);
    while (loop_.Now() < deadline) std::this_thread::yield();
    if (loop_.OnLoop()) return absl::OkStatus();
    // Behind the transport's own timer, which was posted for the same time.
    Outcome passed;
    loop_.PostAt(deadline, [&] { passed.Set({}); });
    passed.Wait();
    return absl::OkStatus();
  };
  std::vector<absl::StatusCode> codes(16, absl::StatusCode::kDeadlineExceeded);
  const auto statuses = Read(*reader.transport, peer, std::move(batch));
  // None on a machine that took longer than that for the first.
  ASSERT_LE(verified.size(), 1u);
  if (verified.empty()) return ExpectCodes(statuses, codes);
  ExpectCodesButOk(statuses, std::move(codes), verified[0]);
}

TEST_P(TransportConformance, AFarDeadlineDoesNotDisturb) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  ReadBatch batch = Batch(reader, 16, 1 << 12);
  batch.deadline = loop_.Now() + absl::Hours(1);
  ExpectAllOk(Read(*reader.transport, peer, std::move(batch)), 16);
}

TEST_P(TransportConformance, AFreedRegionFailsAtTheReaderAndOthersLive) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  PeerAddress address = owner.address();
  address.regions.push_back(owner.target->descriptor());
  const auto peer = reader.transport->Connect(address);
  ASSERT_TRUE(peer.ok());
  owner.pool.reset();
  ReadBatch batch{.ops = {Op(reader, 0, 0, 100), Op(reader, 0, 200, 100)}};
  batch.ops[1].region = RegionIndex(1);
  ExpectCodes(Read(*reader.transport, *peer, std::move(batch)),
              {absl::StatusCode::kUnavailable, absl::StatusCode::kOk});
}

TEST_P(TransportConformance, APeerThatDiesInTheMiddleIsUnavailableAndARestartedOneIsNot) {
  Node owner = MakeNode(8 << 20, 1);
  Node reader = MakeNode(8 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  std::vector<Outcome> outcomes(8);
  for (Outcome& outcome : outcomes) {
    Start(*reader.transport, peer, Batch(reader, 128, 1 << 16), outcome);
  }
  owner.Die();
  for (Outcome& outcome : outcomes) {
    ExpectOkOr(outcome.Wait(), 128, {absl::StatusCode::kUnavailable});
  }
  ExpectCodes(Read(*reader.transport, peer, Batch(reader, 1, 64)),
              {absl::StatusCode::kUnavailable});
  Node restarted = MakeNode(1 << 20, 3);
  const PeerId again = Connect(reader, restarted);
  ExpectAllOk(Read(*reader.transport, again, Batch(reader, 16, 1 << 16)), 16);
  EXPECT_TRUE(Equal(reader.target->bytes().first(1 << 20), restarted.pool->bytes()));
}

TEST_P(TransportConformance, ATransportDestroyedWithReadsUnderWayEndsThem) {
  Node owner = MakeNode(4 << 20, 1);
  Node reader = MakeNode(4 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  Outcome outcome;
  Start(*reader.transport, peer, Batch(reader, 1024, 1 << 12), outcome);
  const std::span<std::byte> target = reader.target->bytes();
  std::vector<std::byte> then;
  OnLoop([&] {
    reader.transport.reset();
    then.assign(target.begin(), target.end());
  });
  ExpectOkOr(outcome.Wait(), 1024, {absl::StatusCode::kUnavailable});
  EXPECT_TRUE(Equal(target, then)) << "written after the transport was gone";
  EXPECT_EQ(outcome.times(), 1);
}

TEST_P(TransportConformance, ARegionOutlivesItsTransportButIsNotReadAnyMore) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 1, 64)), 1);
  owner.transport.reset();
  Random(5).Fill(owner.pool->bytes());
  ExpectCodes(Read(*reader.transport, peer, Batch(reader, 1, 64)),
              {absl::StatusCode::kUnavailable});
}

// The owner refills a page under its readers: what arrives is some mix, and verify must see it.
TEST_P(TransportConformance, AnOwnerMayWriteWhileAPeerReads) {
  Node owner = MakeNode(1 << 16, 1);
  Node reader = MakeNode(1 << 16, 2);
  const PeerId peer = Connect(reader, owner);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint64_t round = 0; !stop; ++round) Random(round).Fill(owner.pool->bytes().first(4096));
  });
  for (int round = 0; round < 20; ++round) {
    ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 4, 1 << 12)), 4);
  }
  stop = true;
  writer.join();
  ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 4, 1 << 12)), 4);
  EXPECT_TRUE(Equal(reader.target->bytes().first(4 << 12), owner.pool->bytes().first(4 << 12)));
}

TEST_P(TransportConformance, ThreadsConnectAndAllocateWhileReadsRun) {
  Node owner = MakeNode(1 << 20, 1);
  Node reader = MakeNode(1 << 20, 2);
  const PeerId peer = Connect(reader, owner);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(reader.transport->Connect(owner.address()).ok());
        EXPECT_TRUE(reader.transport->Allocate(1 << 12).ok());
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    ExpectAllOk(Read(*reader.transport, peer, Batch(reader, 16, 1 << 16)), 16);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(Equal(reader.target->bytes(), owner.pool->bytes()));
}

}  // namespace tarn
