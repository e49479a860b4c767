// The figures of the public trace, and that ours is never worse than the references by more than
// noise, on traces that are nothing like it.

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"
#include "kvstore/core/s3_fifo.h"
#include "tests/bench/policy/replay.h"
#include "tests/bench/policy/trace.h"

namespace tarn {
namespace {

template <typename Policy>
double Rate(const Trace& trace, int pages) {
  return 100 * ReplayThroughTable(trace, pages, std::make_unique<Policy>(pages)).hit_rate;
}
double Lru(const Trace& trace, int pages) { return Rate<kvstore::LruPolicy>(trace, pages); }
double S3Fifo(const Trace& trace, int pages) { return Rate<kvstore::S3FifoPolicy>(trace, pages); }
double Learned(const Trace& trace, int pages) { return Rate<kvstore::LearnedPolicy>(trace, pages); }
double Belady(const Trace& trace, int pages) { return 100 * BeladyHitRate(trace, pages); }

class PublicTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("TARN_TRACE");
    absl::StatusOr<Trace> trace = ReadTrace(path == nullptr ? "" : path);
    if (!trace.ok()) GTEST_SKIP() << "TARN_TRACE: " << trace.status().message();
    trace_ = *std::move(trace);
  }
  Trace trace_;
};

// Counted by others, with other code.
TEST_F(PublicTraceTest, KnownFiguresComeOut) {
  EXPECT_EQ(trace_.references, 288'500u);
  EXPECT_EQ(trace_.blocks, 182'790u);
  EXPECT_NEAR(Lru(trace_, 1'000), 4.45, 0.005);
  EXPECT_NEAR(Lru(trace_, 10'000), 21.16, 0.005);
  EXPECT_NEAR(Lru(trace_, 30'000), 32.57, 0.005);
  EXPECT_NEAR(Lru(trace_, 50'000), 35.46, 0.005);
  EXPECT_NEAR(Lru(trace_, 100'000), 36.37, 0.005);
  EXPECT_NEAR(Belady(trace_, 10'000), 36.64, 0.005);
  EXPECT_NEAR(Belady(trace_, 5'859), 35.3, 0.05);
}

// The promise: nowhere below LRU or S3-FIFO, and 15% of the way to the optimum where a cache of
// usual size stands.
TEST_F(PublicTraceTest, OursKeepsItsPromise) {
  for (int pages : {1'000, 3'000, 6'000, 10'000, 30'000, 100'000}) {
    SCOPED_TRACE(pages);
    const double ours = Learned(trace_, pages), lru = Lru(trace_, pages);
    EXPECT_GE(ours, lru);
    EXPECT_GE(ours, S3Fifo(trace_, pages));
    if (pages != 6'000 && pages != 10'000) continue;
    EXPECT_GE((ours - lru) / (Belady(trace_, pages) - lru), 0.15);
  }
}

TEST(MadeUpTraceTest, SeedsSayAll) {
  const Trace one = Mixture(3), again = Mixture(3);
  ASSERT_EQ(one.requests.size(), again.requests.size());
  EXPECT_EQ(one.requests.back().blocks, again.requests.back().blocks);
  EXPECT_EQ(one.requests.back().arrival, again.requests.back().arrival);
  EXPECT_NE(one.references, Mixture(4).references);
}

TEST(MadeUpTraceTest, OursIsNeverFarBelowTheReferences) {
  for (const Trace& trace : MadeUpTraces(7)) {
    for (int pages : {1'000, 6'000}) {
      SCOPED_TRACE(trace.name + " at " + std::to_string(pages));
      const double ours = Learned(trace, pages);
      EXPECT_LE(ours, Belady(trace, pages) + 1e-9);
      // Where there is nothing to learn, luck alone makes half a point (one standard deviation).
      EXPECT_GE(ours, Lru(trace, pages) - 1.0);
      EXPECT_GE(ours, S3Fifo(trace, pages) - 1.0);
    }
  }
}

TEST(LruHitRateTest, CountsByHand) {
  Trace trace{.requests = {{absl::UnixEpoch(), {0, 1}},
                           {absl::UnixEpoch(), {0, 2}},
                           {absl::UnixEpoch(), {1}}},
              .references = 5,
              .blocks = 3};
  EXPECT_DOUBLE_EQ(LruHitRate(trace, 2), 0.2) << "0; 2 takes the place of 1";
  EXPECT_DOUBLE_EQ(LruHitRate(trace, 3), 0.4);
  EXPECT_DOUBLE_EQ(BeladyHitRate(trace, 2), 0.4) << "2 is not kept";
  EXPECT_DOUBLE_EQ(Lru(trace, 2), 20);
}

}  // namespace
}  // namespace tarn
