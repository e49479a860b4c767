#include "engine/text/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

#include "common/base/status.h"

namespace tarn::engine {
namespace {

StopMatcher Matcher(std::vector<std::string> stops, bool include_stop = false) {
  auto matcher = StopMatcher::Create(std::move(stops), include_stop);
  EXPECT_TRUE(matcher.ok()) << matcher.status();
  return *std::move(matcher);
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher = Matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("hello\n"), "hello");
  EXPECT_EQ(matcher.Push("\nUs"), "");
  EXPECT_EQ(matcher.Push("ing"), "\n\nUsing");
  EXPECT_EQ(matcher.Push("x\n\nUser"), "x");
  EXPECT_EQ(matcher.matched(), std::nullopt);
  EXPECT_EQ(matcher.Push(": more"), "");
  EXPECT_EQ(matcher.matched(), 0);
  EXPECT_EQ(matcher.Push("and more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, FlushGivesWhatWasHeld) {
  StopMatcher matcher = Matcher({"stop"});
  EXPECT_EQ(matcher.Push("sto"), "");
  EXPECT_EQ(matcher.Flush(), "sto");
}

TEST(StopMatcher, MayIncludeTheStop) {
  StopMatcher matcher = Matcher({"</a>"}, true);
  EXPECT_EQ(matcher.Push("x</"), "x");
  EXPECT_EQ(matcher.Push("a>y"), "</a>");
}

TEST(StopMatcher, FirstEndWinsThenTheLongest) {
  StopMatcher matcher = Matcher({"abcd", "bc", "abc"});
  EXPECT_EQ(matcher.Push("xabcd"), "x");
  EXPECT_EQ(matcher.matched(), 2);
}

TEST(StopMatcher, FallsBackInsideARepetition) {
  StopMatcher matcher = Matcher({"aab"});
  EXPECT_EQ(matcher.Push("aaaa"), "aa");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_EQ(matcher.matched(), 0);
}

TEST(StopMatcher, EmptyStopIsRefusedByIndex) {
  const auto status = StopMatcher::Create({"a", ""}, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(status).find("stop[1]"), std::string::npos);
}

struct Found {
  size_t end = std::string::npos;
  int stop = -1;
};

Found FindFirst(const std::string& text, const std::vector<std::string>& stops) {
  Found best;
  for (size_t i = 0; i < stops.size(); ++i) {
    const size_t at = text.find(stops[i]);
    if (at == std::string::npos) continue;
    const size_t end = at + stops[i].size();
    const bool longer =
        end == best.end && stops[i].size() > stops[static_cast<size_t>(best.stop)].size();
    if (end < best.end || longer) best = {end, static_cast<int>(i)};
  }
  return best;
}

TEST(StopMatcher, AgreesWithFindHoweverTheTextIsCut) {
  std::mt19937 random(9);
  const auto random_text = [&](size_t max) {
    std::string text;
    for (size_t n = random() % max; n > 0; --n) text.push_back("ab"[random() % 2]);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = random_text(6).append("a");
    const std::string text = random_text(40);
    const bool include = round % 2;
    StopMatcher matcher = Matcher(stops, include);
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 5;
      out += matcher.Push(std::string_view(text).substr(at, length));
      at += length;
    }
    out += matcher.Flush();
    const Found found = FindFirst(text, stops);
    ASSERT_EQ(matcher.matched().value_or(-1), found.stop) << text;
    std::string expected = text.substr(0, found.end);
    if (found.stop >= 0 && !include) expected.resize(expected.size() - stops[found.stop].size());
    ASSERT_EQ(out, expected);
  }
}

}  // namespace
}  // namespace tarn::engine
