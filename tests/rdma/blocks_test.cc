// Blocks of another process, pulled over RC queue pairs, in good weather and in bad.

#include <gtest/gtest.h>

#include <iostream>

#include "common/transport/verbs/rdma_devices.h"
#include "tests/rdma/pool_on_port.h"
#include "tests/rdma/test_ports.h"

namespace tarn {
namespace {

using enum absl::StatusCode;

constexpr uint32_t kThousand = 1000;
// Where it is not about the number: a machine that is emulated takes its time.
constexpr uint32_t kBlocks = 400;
// At that rate a thousand take ten seconds: time to do harm in the middle.
constexpr char kSlow[] = "rate 8mbit";
constexpr absl::Duration kPlenty = absl::Seconds(50);
// After its deadline a read that UCX cannot take back holds its page until the peer is given up.
const absl::Duration kGiveUp = UcxOptions().abandon_after + absl::Seconds(10);

class Blocks : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_RDMA();
    StartBoth(kBlocks);
  }
  void StartBoth(uint32_t blocks) {
    reader_ = std::make_unique<PoolOnPort>(PortsOfThisHost()->reader, blocks);
    StartOwner(blocks);
  }
  void StartOwner(uint32_t blocks) {
    owner_ = std::make_unique<BlockOwner>(PortsOfThisHost()->owner, blocks);
    owner_->OfferTo(*reader_);
  }
  // The first reads make the queue pairs.
  void Connect() { reader_->Acquire(0, 1, kPlenty).ExpectOkOr({}); }

  std::unique_ptr<PoolOnPort> reader_;
  std::unique_ptr<BlockOwner> owner_;
};

class ThousandBlocks : public Blocks {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_RDMA();
    StartBoth(kThousand);
  }
};

TEST_F(ThousandBlocks, ArePulledAndVerified) {
  const PoolOnPort::Outcome outcome = reader_->Acquire(0, kThousand, kPlenty);
  outcome.ExpectOkOr({});
  EXPECT_EQ(outcome.ok(), static_cast<int>(kThousand));
  EXPECT_EQ(reader_->Stats().verify_failures, 0u);
  EXPECT_EQ(reader_->Stats().hits_remote, kThousand);
  reader_->ExpectQuiet();
  std::cout << "1,000 blocks in " << absl::FormatDuration(outcome.took) << "\n";
}

TEST_F(Blocks, AnOwnerKilledBeforehandIsUnavailable) {
  Connect();
  owner_->Kill();
  const PoolOnPort::Outcome outcome = reader_->Acquire(1, 20, kPlenty);
  outcome.ExpectOkOr({kUnavailable, kNotFound});
  EXPECT_EQ(outcome.ok(), 0);
  reader_->ExpectQuiet();
}

// No word from the dead: the deadline ends the wait.
TEST_F(Blocks, ADeadlineEndsAPullFromADeadOwner) {
  Connect();
  owner_->Kill();
  const PoolOnPort::Outcome outcome = reader_->Acquire(1, 20, absl::Milliseconds(200));
  outcome.ExpectOkOr({kDeadlineExceeded, kUnavailable, kNotFound});
  EXPECT_EQ(outcome.ok(), 0);
  reader_->ExpectQuiet();
}

// The reader computes what it does not get, and gets what the restarted owner has.
TEST_F(ThousandBlocks, AnOwnerKilledInMidReadEndsThePullAndNothingLeaks) {
  auto slow = CableFault::Start(kSlow);
  const absl::Time started = SteadyNow();
  const auto pull = reader_->Start(0, kThousand, kPlenty);
  reader_->WaitForBytes(1);
  owner_->Kill();
  std::cout << "killed after " << absl::FormatDuration(SteadyNow() - started) << "\n";
  const PoolOnPort::Outcome outcome = pull->Wait(kPlenty + kGiveUp);
  outcome.ExpectOkOr({kUnavailable, kNotFound});
  EXPECT_TRUE(slow == nullptr || outcome.ok() < static_cast<int>(kThousand)) << "killed too late";
  reader_->ExpectQuiet();
  slow.reset();
  StartOwner(kThousand);
  reader_->Acquire(0, kThousand, kPlenty).ExpectOkOr({});
  reader_->ExpectQuiet();
}

class BadCable : public Blocks {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_RDMA();
    if (!CableCanBeCut())
      GTEST_SKIP() << "needs two ports in software, and root, to spoil the cable";
    Blocks::SetUp();
    Connect();
  }
  // Mended, and the port has its address back: the kernel looks first whether it is unique.
  static void Mend() {
    SetCable(true);
    const std::string device =
        PortsOfThisHost()->owner.substr(0, PortsOfThisHost()->owner.rfind(':'));
    const absl::Time end = SteadyNow() + kPlenty;
    while (!HasAddress(device)) ASSERT_LT(SteadyNow(), end) << "the port does not come back";
  }

 private:
  static bool HasAddress(const std::string& name) {
    const auto devices = ListRdmaDevices();
    if (!devices.ok()) return false;
    for (const RdmaDevice& device : *devices) {
      if (device.name != name) continue;
      const RdmaPort& port = device.ports.at(0);
      return port.state == RdmaPort::State::kActive && !port.gids.empty();
    }
    return false;
  }
};

TEST_F(BadCable, OnePacketInTwentyIsLost) {
  const auto fault = CableFault::Start("loss 5%");
  ASSERT_NE(fault, nullptr);
  const PoolOnPort::Outcome outcome = reader_->Acquire(1, 100, kPlenty);
  outcome.ExpectOkOr({});
  EXPECT_EQ(outcome.ok(), 100);
  EXPECT_EQ(reader_->Stats().verify_failures, 0u);
  reader_->ExpectQuiet();
}

TEST_F(BadCable, EveryPacketTakesTwentyMilliseconds) {
  const auto fault = CableFault::Start("delay 20ms");
  ASSERT_NE(fault, nullptr);
  const PoolOnPort::Outcome outcome = reader_->Acquire(1, 100, kPlenty);
  outcome.ExpectOkOr({});
  EXPECT_EQ(outcome.ok(), 100);
  reader_->ExpectQuiet();
}

TEST_F(BadCable, ACutInMidReadEndsThePullByItsDeadlineAndTheMendedCableServesAgain) {
  constexpr absl::Duration kDeadline = absl::Seconds(3);
  auto slow = CableFault::Start(kSlow);
  ASSERT_NE(slow, nullptr);
  const auto pull = reader_->Start(1, kBlocks - 1, kDeadline);
  reader_->WaitForBytes(1);
  SetCable(false);
  slow.reset();
  const PoolOnPort::Outcome outcome = pull->Wait(kDeadline + kGiveUp);
  Mend();
  outcome.ExpectOkOr({kDeadlineExceeded, kUnavailable, kNotFound});
  EXPECT_LT(outcome.ok(), static_cast<int>(kBlocks) - 1) << "the cut came too late";
  reader_->ExpectQuiet();
  // The same owner, by a new connection.
  owner_->OfferTo(*reader_);
  const PoolOnPort::Outcome again = reader_->Acquire(1, kBlocks - 1, kPlenty);
  again.ExpectOkOr({});
  reader_->ExpectQuiet();
}

}  // namespace
}  // namespace tarn
