#include "kvstore/tier/slab/slab_store.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include "common/transport/loopback/loopback_transport.h"
#include "common/transport/ucx/ucx_transport.h"
#include "kvstore/tier/conformance.h"
#include "kvstore/tier/slab/slab_harness.h"

namespace tarn::kvstore {
namespace {

class LoopbackHarness : public SlabHarness {
 public:
  LoopbackHarness() { Start(std::make_unique<LoopbackTransport>(fabric_, driver_.loop())); }
  ~LoopbackHarness() override { End(); }
  LoopDriver& driver() override { return driver_; }

 private:
  LoopbackFabric fabric_;
  SimLoopDriver driver_;
};

std::unique_ptr<Transport> MakeUcx(EventLoop& loop) {
  auto transport = UcxTransport::Create({}, loop);
  CHECK(transport.ok()) << transport.status();
  return *std::move(transport);
}

std::unique_ptr<BlockStoreHarness> OverLoopback() { return std::make_unique<LoopbackHarness>(); }
std::unique_ptr<BlockStoreHarness> OverUcx() { return std::make_unique<RealSlabHarness>(&MakeUcx); }

INSTANTIATE_TEST_SUITE_P(SlabOverLoopback, BlockStoreConformance, testing::Values(&OverLoopback));
INSTANTIATE_TEST_SUITE_P(SlabOverUcx, BlockStoreConformance, testing::Values(&OverUcx));

// What peers see of a slab, over a loopback on a simulated loop.
class SlabStoreTest : public testing::Test {
 protected:
  SlabStoreTest() {
    pages_ = *transport_.Allocate(2 * layout_.page_bytes());
    store_ = *SlabStore::Create({layout_, 2}, &loop_, &transport_);
    self_ = *transport_.Connect(
        {transport_.Address(), {pages_->descriptor(), store_->memory()->descriptor()}});
    store_->Connect(self_, {pages_});
  }
  std::span<std::byte> Page(int index) {
    return pages_->bytes().subspan(index * layout_.page_bytes(), layout_.page_bytes());
  }
  absl::Status Write(int32_t slot, uint32_t number) {
    SealTestBlock(layout_, number, Page(0), 9);
    std::optional<absl::Status> end;
    store_->Write(slot, TestRecord(number), Page(0), [&](absl::Status status) { end = status; });
    loop_.RunUntilIdle();
    return end.value();
  }
  // As a peer pulls it.
  absl::Status Pull(const BlockAddress& address, uint32_t number) {
    ReadBatch batch;
    batch.ops.push_back({RegionIndex(address.region), address.offset, Page(1)});
    batch.verify = [&](size_t) {
      return VerifyBlock(layout_, {TestKey(number), address.epoch, 16}, Page(1));
    };
    absl::Status end;
    transport_.Read(self_, std::move(batch), [&](const auto& statuses) { end = statuses[0]; });
    loop_.RunUntilIdle();
    return end;
  }

  const BlockLayout layout_ = BlockStoreHarness::layout();
  SimEventLoop loop_;
  LoopbackFabric fabric_;
  LoopbackTransport transport_{fabric_, loop_};
  std::shared_ptr<RegisteredMemory> pages_;
  std::unique_ptr<SlabStore> store_;
  PeerId self_;
};

TEST_F(SlabStoreTest, PeersReadABlockAtItsAddressUnderItsStamp) {
  ASSERT_TRUE(Write(1, 5).ok());
  const BlockAddress first = store_->Address(1);
  EXPECT_EQ(first.epoch, 9u);
  EXPECT_TRUE(Pull(first, 5).ok());
  store_->Stamp(1, {TestKey(5), 77, 16});
  EXPECT_TRUE(Pull(store_->Address(1), 5).ok());
  EXPECT_EQ(store_->Address(1).epoch, 77u);
  EXPECT_EQ(Pull(first, 5).code(), absl::StatusCode::kAborted);
}

TEST_F(SlabStoreTest, PeersDoNotReadWhatWasErasedOrOverwritten) {
  ASSERT_TRUE(Write(0, 5).ok());
  ASSERT_TRUE(Write(1, 6).ok());
  const BlockAddress erased = store_->Address(0);
  const BlockAddress overwritten = store_->Address(1);
  store_->Erase(0);
  EXPECT_EQ(Pull(erased, 5).code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(Write(1, 7).ok());
  EXPECT_EQ(Pull(overwritten, 6).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(store_->Address(0).epoch, 0u);
}

TEST_F(SlabStoreTest, ServesWhatWasMadeInPlace) {
  SealTestBlock(layout_, 8, store_->Bytes(0), 3);
  store_->Stamp(0, {TestKey(8), 4, 16});
  absl::Status end = absl::UnknownError("not done");
  store_->Read(0, TestKey(8), Page(1), absl::InfiniteFuture(), [&](absl::Status s) { end = s; });
  loop_.RunUntilIdle();
  EXPECT_TRUE(end.ok()) << end;
  EXPECT_TRUE(VerifyBlock(layout_, {TestKey(8), 4, 16}, Page(1)).ok());
}

TEST_F(SlabStoreTest, APageThatDoesNotMatchItsSealIsDataLoss) {
  SealTestBlock(layout_, 5, Page(0));
  Page(0)[layout_.payload_offset()] ^= std::byte{1};
  absl::Status end;
  store_->Write(0, TestRecord(5), Page(0), [&](absl::Status status) { end = status; });
  loop_.RunUntilIdle();
  EXPECT_EQ(end.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->Address(0).epoch, 0u);
  EXPECT_EQ(HeaderOf(store_->Bytes(0)).magic, 0u);
}

TEST_F(SlabStoreTest, TooMuchMemoryIsRefusedWithItsSize) {
  const auto store = SlabStore::Create({layout_, 2'000'000'000}, &loop_, &transport_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(Message(store.status()).find("bytes"), std::string::npos);
}

}  // namespace
}  // namespace tarn::kvstore
