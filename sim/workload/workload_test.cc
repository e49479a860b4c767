#include "sim/workload/workload.h"

#include <gtest/gtest.h>

#include <set>

namespace tarn::sim {
namespace {

TEST(ParseTrace, ReadsLinesAndNamesWhatIsWrong) {
  const auto trace = ParseTrace(
      R"({"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]})"
      "\n\n"
      R"({"timestamp": 6000, "input_length": 1, "output_length": 0, "hash_ids": [9]})",
      0);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 2u);
  EXPECT_EQ((*trace)[0].at, absl::Seconds(3));
  EXPECT_EQ((*trace)[0].hash_ids, (std::vector<int64_t>{0, 7}));
  const auto broken = ParseTrace(R"({"timestamp": 1, "input_length": 1, "output_length": 1})", 0);
  EXPECT_TRUE(absl::IsInvalidArgument(broken.status()));
  EXPECT_NE(broken.status().ToString().find("line 1"), std::string::npos);
  EXPECT_TRUE(absl::IsNotFound(ReadTrace("/nowhere").status()));
}

TEST(SpreadArrivals, FillsTheTimeUntilTheNextBucket) {
  std::vector<TraceRequest> requests(5);
  requests[3].at = requests[4].at = absl::Seconds(3);
  SpreadArrivals(&requests);
  EXPECT_EQ(requests[0].at, absl::ZeroDuration());
  EXPECT_EQ(requests[1].at, absl::Seconds(1));
  EXPECT_EQ(requests[2].at, absl::Seconds(2));
  EXPECT_EQ(requests[3].at, absl::Seconds(3));
  EXPECT_EQ(requests[4].at, absl::Milliseconds(4500));
}

TEST(MakeSessions, TurnsExtendTheirConversation) {
  SessionOptions options;
  options.sessions_per_second = 0.5;
  const Workload workload = MakeSessions(options);
  // About 1,800 sessions of 3 turns.
  EXPECT_NEAR(workload.requests.size(), 5400, 600);
  std::set<int64_t> seen;
  size_t references = 0, hits = 0;
  absl::Duration before;
  for (const TraceRequest& request : workload.requests) {
    EXPECT_GE(request.at, before);
    before = request.at;
    EXPECT_EQ(
        request.hash_ids.size(),
        static_cast<size_t>((request.input_tokens + kTraceBlockTokens - 1) / kTraceBlockTokens));
    for (const int64_t id : request.hash_ids) {
      ++references;
      hits += seen.insert(id).second ? 0 : 1;
    }
  }
  EXPECT_GT(hits, references / 3) << "later turns bring the earlier ones again";
}

TEST(MakeSessions, SeedsSayAll) {
  SessionOptions options;
  options.duration = absl::Minutes(5);
  const Workload one = MakeSessions(options), again = MakeSessions(options);
  ASSERT_EQ(one.requests.size(), again.requests.size());
  EXPECT_EQ(one.requests.back().hash_ids, again.requests.back().hash_ids);
  options.seed = 2;
  EXPECT_NE(MakeSessions(options).requests.back().at, one.requests.back().at);
}

TEST(ScaleRate, CompressesTime) {
  const Workload workload{"", {{absl::Seconds(1)}, {absl::Seconds(5)}}};
  EXPECT_EQ(ScaleRate(workload, 2).duration(), absl::Seconds(2));
}

}  // namespace
}  // namespace tarn::sim
