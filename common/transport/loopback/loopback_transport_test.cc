#include "common/transport/loopback/loopback_transport.h"

#include <gtest/gtest.h>

#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/conformance.h"

namespace tarn {
namespace {

class LoopbackHarness : public TransportHarness {
 public:
  std::unique_ptr<Transport> Make(EventLoop& loop) override {
    return std::make_unique<LoopbackTransport>(fabric_, loop);
  }

 private:
  LoopbackFabric fabric_;
};

std::unique_ptr<TransportHarness> MakeHarness() { return std::make_unique<LoopbackHarness>(); }

INSTANTIATE_TEST_SUITE_P(Loopback, TransportConformance, testing::Values(&MakeHarness));

// On a simulated loop each op is one task, so what comes in between is exact.
class LoopbackSimTest : public testing::Test {
 protected:
  LoopbackSimTest() {
    Random(1).Fill(pool_->bytes());
    peer_ = *reader_->Connect({owner_->Address(), {pool_->descriptor()}});
  }
  ReadBatch Batch(size_t count) {
    ReadBatch batch;
    for (size_t i = 0; i < count; ++i) {
      batch.ops.push_back({RegionIndex(0), i * 8, target_->bytes().subspan(i * 8, 8)});
    }
    return batch;
  }
  TransferId Start(ReadBatch batch) {
    return reader_->Read(peer_, std::move(batch), [this](std::vector<absl::Status> statuses) {
      for (const absl::Status& status : statuses) codes_.push_back(status.code());
    });
  }

  LoopbackFabric fabric_;
  SimEventLoop loop_;
  std::unique_ptr<LoopbackTransport> owner_ = std::make_unique<LoopbackTransport>(fabric_, loop_);
  std::unique_ptr<LoopbackTransport> reader_ = std::make_unique<LoopbackTransport>(fabric_, loop_);
  std::unique_ptr<RegisteredMemory> pool_ = *owner_->Allocate(4096);
  std::unique_ptr<RegisteredMemory> target_ = *reader_->Allocate(4096);
  PeerId peer_;
  std::vector<absl::StatusCode> codes_;
};

using enum absl::StatusCode;

TEST_F(LoopbackSimTest, ACancelBetweenOpsLeavesTheFirstDone) {
  const TransferId id = Start(Batch(3));
  loop_.RunOne();
  reader_->Cancel(id);
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (std::vector{kOk, kCancelled, kCancelled}));
}

TEST_F(LoopbackSimTest, ADisconnectBetweenOpsLeavesTheFirstDone) {
  Start(Batch(3));
  loop_.RunOne();
  reader_->Disconnect(peer_);
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (std::vector{kOk, kUnavailable, kUnavailable}));
}

TEST_F(LoopbackSimTest, ATransportDestroyedBetweenOpsEndsTheRest) {
  Start(Batch(3));
  loop_.RunOne();
  reader_.reset();
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (std::vector{kOk, kUnavailable, kUnavailable}));
}

TEST_F(LoopbackSimTest, AnOwnerThatDiesBetweenOpsIsUnavailableFromThen) {
  Start(Batch(3));
  loop_.RunOne();
  pool_.reset();
  owner_.reset();
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (std::vector{kOk, kUnavailable, kUnavailable}));
}

TEST_F(LoopbackSimTest, ADeadlineBetweenOpsEndsTheRest) {
  ReadBatch batch = Batch(3);
  batch.deadline = loop_.Now() + absl::Seconds(1);
  Start(std::move(batch));
  loop_.RunOne();
  loop_.SetNow(loop_.Now() + absl::Seconds(1));
  loop_.RunUntilIdle();
  EXPECT_EQ(codes_, (std::vector{kOk, kDeadlineExceeded, kDeadlineExceeded}));
}

}  // namespace
}  // namespace tarn
