#include "common/transport/fault/fault_transport.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/conformance.h"
#include "common/transport/loopback/loopback_transport.h"

namespace tarn {
namespace {

class FaultHarness : public TransportHarness {
 public:
  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    return std::make_unique<FaultTransport>(std::make_unique<LoopbackTransport>(fabric_, loop),
                                            loop, NoFaults());
  }

 private:
  LoopbackFabric fabric_;
};

std::unique_ptr<TransportHarness> MakeHarness() { return std::make_unique<FaultHarness>(); }

INSTANTIATE_TEST_SUITE_P(FaultOverLoopback, TransportConformance, testing::Values(&MakeHarness));

using enum absl::StatusCode;
using Codes = std::vector<absl::StatusCode>;

constexpr size_t kSize = 64;

// A reader whose faults are given op by op, over a loopback on a simulated loop.
class FaultTransportTest : public testing::Test {
 protected:
  FaultTransportTest() {
    Random(1).Fill(pool_->bytes());
    peer_ = *reader_->Connect({owner_.Address(), {pool_->descriptor()}});
  }

  void SetFaults(std::vector<Fault> faults) {
    reader_->SetPlan([faults = std::move(faults)](PeerId, const ReadOp& op) {
      return faults.at(op.offset / kSize);
    });
  }
  ReadBatch Batch(size_t count) {
    ReadBatch batch;
    for (size_t i = 0; i < count; ++i) batch.ops.push_back({RegionIndex(0), i * kSize, Target(i)});
    return batch;
  }
  TransferId Start(ReadBatch batch) {
    return reader_->Read(peer_, std::move(batch), [this](const auto& statuses) {
      ASSERT_FALSE(codes_.has_value()) << "done ran twice";
      codes_.emplace();
      for (const absl::Status& status : statuses) codes_->push_back(status.code());
      ended_ = loop_.Now();
    });
  }
  std::span<std::byte> Target(size_t i) { return target_->bytes().subspan(i * kSize, kSize); }
  // How many bits of what arrived differ from the owner's.
  int WrongBits(size_t i) {
    int wrong = 0;
    for (size_t b = 0; b < kSize; ++b) {
      const auto difference = Target(i)[b] ^ pool_->bytes()[i * kSize + b];
      wrong += __builtin_popcount(std::to_integer<unsigned>(difference));
    }
    return wrong;
  }

  LoopbackFabric fabric_;
  SimEventLoop loop_;
  const absl::Time begin_ = loop_.Now();
  LoopbackTransport owner_{fabric_, loop_};
  std::unique_ptr<FaultTransport> reader_ = std::make_unique<FaultTransport>(
      std::make_unique<LoopbackTransport>(fabric_, loop_), loop_, NoFaults());
  std::unique_ptr<RegisteredMemory> pool_ = *owner_.Allocate(4096);
  std::unique_ptr<RegisteredMemory> target_ = *reader_->Allocate(4096);
  PeerId peer_;
  std::optional<Codes> codes_;
  absl::Time ended_;
};

TEST_F(FaultTransportTest, AnErrorIsTheStatusOfItsOpAndTheOthersAreRead) {
  SetFaults({{}, {.error = absl::ResourceExhaustedError("injected")}, {}});
  Start(Batch(3));
  EXPECT_FALSE(codes_.has_value());
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kOk, kResourceExhausted, kOk}));
  EXPECT_EQ(WrongBits(0) + WrongBits(2), 0);
  EXPECT_GT(WrongBits(1), 0);
}

TEST_F(FaultTransportTest, ABatchOfErrorsEndsLaterThanItsRead) {
  SetFaults({{.error = absl::UnavailableError("injected")}});
  Start(Batch(1));
  EXPECT_FALSE(codes_.has_value());
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, Codes{kUnavailable});
}

TEST_F(FaultTransportTest, ADelayHoldsUpItsBatchForAsLong) {
  SetFaults({{}, {.delay = absl::Seconds(3)}, {.delay = absl::Seconds(2)}});
  Start(Batch(3));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kOk, kOk, kOk}));
  EXPECT_EQ(ended_ - begin_, absl::Seconds(3));
  EXPECT_EQ(WrongBits(0) + WrongBits(1) + WrongBits(2), 0);
}

TEST_F(FaultTransportTest, ADelayPastTheDeadlineEndsAtTheDeadline) {
  SetFaults({{}, {.delay = absl::Seconds(3)}});
  ReadBatch batch = Batch(2);
  batch.deadline = loop_.Now() + absl::Seconds(1);
  Start(std::move(batch));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kOk, kDeadlineExceeded}));
  EXPECT_EQ(ended_ - begin_, absl::Seconds(1));
}

TEST_F(FaultTransportTest, VerifySeesTheFlippedBit) {
  SetFaults({{}, {.flip_bit = 5 + 8 * kSize}});
  ReadBatch batch = Batch(2);
  batch.verify = [this](size_t i) {
    return WrongBits(i) == 0 ? absl::OkStatus() : absl::DataLossError("checksum");
  };
  Start(std::move(batch));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kOk, kDataLoss}));
  EXPECT_EQ(Target(1)[0] ^ pool_->bytes()[kSize], std::byte{1 << 5});
}

TEST_F(FaultTransportTest, WithoutVerifyTheFlippedBitIsNotNoticed) {
  SetFaults({{.flip_bit = 77}});
  Start(Batch(1));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, Codes{kOk});
  EXPECT_EQ(WrongBits(0), 1);
}

TEST_F(FaultTransportTest, VerifyIsAskedWithTheIndexInItsBatchForDelayedOpsToo) {
  SetFaults({{.delay = absl::Seconds(1)}, {.error = absl::AbortedError("injected")}, {}});
  ReadBatch batch = Batch(3);
  std::vector<size_t> asked;
  batch.verify = [&](size_t i) {
    asked.push_back(i);
    return absl::OkStatus();
  };
  Start(std::move(batch));
  loop_.RunUntilIdle();
  EXPECT_EQ(asked, (std::vector<size_t>{2, 0}));
}

TEST_F(FaultTransportTest, AStallEndsAtTheDeadline) {
  SetFaults({{.stall = true}, {}});
  ReadBatch batch = Batch(2);
  batch.deadline = loop_.Now() + absl::Seconds(5);
  Start(std::move(batch));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kDeadlineExceeded, kOk}));
  EXPECT_EQ(ended_ - begin_, absl::Seconds(5));
}

TEST_F(FaultTransportTest, AStallWithoutADeadlineEndsWithCancel) {
  SetFaults({{.stall = true}, {}, {.delay = absl::Seconds(90)}});
  const TransferId id = Start(Batch(3));
  loop_.RunFor(absl::Seconds(60));
  EXPECT_FALSE(codes_.has_value());
  reader_->Cancel(id);
  reader_->Cancel(id);
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kCancelled, kOk, kCancelled}));
}

TEST_F(FaultTransportTest, AStallEndsWithItsPeer) {
  SetFaults({{.stall = true}});
  Start(Batch(1));
  loop_.RunFor(absl::Seconds(1));
  reader_->Disconnect(PeerId(peer_.value() + 1));
  loop_.RunUntilIdle();
  EXPECT_FALSE(codes_.has_value());
  reader_->Disconnect(peer_);
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, Codes{kUnavailable});
}

TEST_F(FaultTransportTest, AStallEndsWithTheTransport) {
  SetFaults({{.stall = true}, {.delay = absl::Seconds(1)}});
  Start(Batch(2));
  loop_.RunOne();
  reader_.reset();
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kUnavailable, kUnavailable}));
}

TEST_F(FaultTransportTest, ACancelReachesWhatTheBaseHasNotReadYet) {
  const TransferId id = Start(Batch(3));
  loop_.RunOne();
  reader_->Cancel(id);
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (Codes{kOk, kCancelled, kCancelled}));
}

// What a plan decides for `count` ops, one letter each.
std::string Letters(FaultPlan plan, int count) {
  std::string letters;
  for (int i = 0; i < count; ++i) {
    const Fault fault = plan(PeerId(1), {});
    letters += fault.stall                          ? 's'
               : !fault.error.ok()                  ? 'e'
               : fault.flip_bit                     ? 'c'
               : fault.delay > absl::ZeroDuration() ? 'd'
                                                    : '.';
  }
  return letters;
}

TEST(SeededFaults, EqualSeedsGiveEqualFaultsAndRatesHold) {
  const FaultRates rates{.stall = 0.1, .delay = 0.1, .error = 0.1, .corrupt = 0.1};
  const std::string letters = Letters(SeededFaults(1, rates), 10'000);
  EXPECT_EQ(letters, Letters(SeededFaults(1, rates), 10'000));
  EXPECT_NE(letters, Letters(SeededFaults(2, rates), 10'000));
  for (const char letter : {'s', 'e', 'c', 'd'}) {
    const auto count = std::count(letters.begin(), letters.end(), letter);
    EXPECT_GT(count, 600) << letter;
    EXPECT_LT(count, 1'200) << letter;
  }
  EXPECT_EQ(Letters(SeededFaults(1, {}), 100), std::string(100, '.'));
}

}  // namespace
}  // namespace tarn
