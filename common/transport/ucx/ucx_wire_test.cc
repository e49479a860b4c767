#include "common/transport/ucx/ucx_wire.h"

#include <gtest/gtest.h>

#include "common/runtime/random.h"

namespace tarn {
namespace {

const UcxRegionDescriptor kRegion{.base = 0x7f0000000000,
                                  .size = 1 << 20,
                                  .guard_address = 0x7f0000100000,
                                  .guard = 42,
                                  .rkey = "remote key"};

TEST(UcxWire, RoundTrips) {
  EXPECT_EQ(*DecodeRegion(EncodeRegion(kRegion)), kRegion);
  EXPECT_EQ(*DecodeWorker(EncodeWorker("worker")), "worker");
}

TEST(UcxWire, EveryFlippedBitAndEveryTruncationIsRefused) {
  const std::string good = EncodeRegion(kRegion);
  for (size_t i = 0; i < good.size() * 8; ++i) {
    std::string bad = good;
    bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << i % 8));
    EXPECT_EQ(DecodeRegion(bad).status().code(), absl::StatusCode::kInvalidArgument) << i;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(DecodeRegion(good.substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(UcxWire, GarbageIsRefused) {
  Random random(1);
  for (int i = 0; i < 1'000; ++i) {
    std::string bytes(random.UniformInt(200), '\0');
    random.Fill(std::as_writable_bytes(std::span(bytes)));
    EXPECT_FALSE(DecodeRegion(bytes).ok());
    EXPECT_FALSE(DecodeWorker(bytes).ok());
  }
}

TEST(UcxWire, KindsDoNotMix) {
  EXPECT_FALSE(DecodeRegion(EncodeWorker(std::string(100, 'w'))).ok());
  EXPECT_FALSE(DecodeWorker(EncodeRegion(kRegion)).ok());
}

TEST(UcxWire, ARegionThatWrapsAroundOrHasNoKeyIsRefused) {
  UcxRegionDescriptor region = kRegion;
  region.size = ~uint64_t{0};
  EXPECT_FALSE(DecodeRegion(EncodeRegion(region)).ok());
  region.size = 0;
  EXPECT_FALSE(DecodeRegion(EncodeRegion(region)).ok());
  region = kRegion;
  region.rkey.clear();
  EXPECT_FALSE(DecodeRegion(EncodeRegion(region)).ok());
  EXPECT_FALSE(DecodeWorker(EncodeWorker("")).ok());
}

}  // namespace
}  // namespace tarn
