#include "common/metrics/registry.h"

#include <cmath>
#include <thread>

#include "gtest/gtest.h"

namespace tarn::metrics {
namespace {

bool HasLine(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Registry, ExposesEachKindWithHelpAndType) {
  Registry registry;
  registry.AddCounter("requests_total", "Requests.").Add(3);
  registry.AddGauge("fill_ratio", "Share.").Set(0.25);
  registry.AddCallbackGauge("pins", "Pins.", [] { return 7.0; });
  registry.AddCallbackCounter("pulled_total", "Pulled.", [] { return 1e18; });
  registry.AddCallbackGaugeFamily("tier_blocks", "Blocks.", {"tier"}, [] {
    return std::vector<Sample>{{{"dram"}, 2}, {{"ssd"}, 4}};
  });
  const std::string text = registry.Expose();
  EXPECT_TRUE(HasLine(text, "# HELP requests_total Requests."));
  EXPECT_TRUE(HasLine(text, "# TYPE requests_total counter"));
  EXPECT_TRUE(HasLine(text, "requests_total 3"));
  EXPECT_TRUE(HasLine(text, "# TYPE fill_ratio gauge"));
  EXPECT_TRUE(HasLine(text, "fill_ratio 0.25"));
  EXPECT_TRUE(HasLine(text, "pins 7"));
  EXPECT_TRUE(HasLine(text, "pulled_total 1e+18"));
  EXPECT_TRUE(HasLine(text, "tier_blocks{tier=\"dram\"} 2"));
  EXPECT_TRUE(HasLine(text, "tier_blocks{tier=\"ssd\"} 4"));
}

TEST(Registry, HistogramBucketsAreCumulatedAndInclusive) {
  Registry registry;
  Histogram& histogram = registry.AddHistogram("seconds", "Time.", {0.1, 1});
  for (double value : {0.05, 0.1, 0.5, 5.0}) histogram.Observe(value);
  const std::string text = registry.Expose();
  EXPECT_TRUE(HasLine(text, "seconds_bucket{le=\"0.1\"} 2"));
  EXPECT_TRUE(HasLine(text, "seconds_bucket{le=\"1\"} 3"));
  EXPECT_TRUE(HasLine(text, "seconds_bucket{le=\"+Inf\"} 4"));
  EXPECT_TRUE(HasLine(text, "seconds_sum 5.65"));
  EXPECT_TRUE(HasLine(text, "seconds_count 4"));
}

TEST(Registry, EscapesLabelValuesAndHelp) {
  Registry registry;
  registry.AddCounterFamily("x_total", "a\\b\n\"c\"", {{"path"}}).With({"q\"\\\n"}).Add();
  const std::string text = registry.Expose();
  EXPECT_TRUE(HasLine(text, "# HELP x_total a\\\\b\\n\"c\""));
  EXPECT_TRUE(HasLine(text, "x_total{path=\"q\\\"\\\\\\n\"} 1"));
}

TEST(Registry, LabelValuesPastTheLimitShareOther) {
  Registry registry;
  Family<Counter>& family = registry.AddCounterFamily("x_total", "X.", {{"tenant"}, 2});
  for (const char* tenant : {"a", "b", "c", "d", "a"}) family.With({tenant}).Add();
  const std::string text = registry.Expose();
  EXPECT_TRUE(HasLine(text, "x_total{tenant=\"a\"} 2"));
  EXPECT_TRUE(HasLine(text, "x_total{tenant=\"b\"} 1"));
  EXPECT_TRUE(HasLine(text, "x_total{tenant=\"other\"} 2"));
  EXPECT_EQ(text.find("tenant=\"c\""), std::string::npos);
  EXPECT_TRUE(HasLine(text, "tarn_metrics_label_overflows_total 2"));
}

TEST(Registry, CountsFromManyThreadsWhileExposed) {
  Registry registry;
  Family<Counter>& family = registry.AddCounterFamily("x_total", "X.", {{"k"}});
  Histogram& histogram = registry.AddHistogram("h", "H.", {1});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) {
        family.With({std::to_string(t % 2)}).Add();
        histogram.Observe(0.5);
      }
    });
  }
  for (int i = 0; i < 20; ++i) registry.Expose();
  for (std::thread& thread : threads) thread.join();
  const std::string text = registry.Expose();
  EXPECT_TRUE(HasLine(text, "x_total{k=\"0\"} 2000"));
  EXPECT_TRUE(HasLine(text, "x_total{k=\"1\"} 2000"));
  EXPECT_TRUE(HasLine(text, "h_sum 2000"));
}

TEST(RegistryDeathTest, RefusesWrongNames) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Registry registry;
  registry.AddGauge("a", "");
  EXPECT_DEATH(registry.AddGauge("a", ""), "a is registered twice");
  EXPECT_DEATH(registry.AddGauge("1a", ""), "no metric name");
  EXPECT_DEATH(registry.AddGauge("a-b", ""), "no metric name");
  EXPECT_DEATH(registry.AddGaugeFamily("b", "", {{"__x"}}), "no label name");
  EXPECT_DEATH(registry.AddHistogramFamily("c", "", {{"le"}}, {1}), "label le");
  EXPECT_DEATH(registry.AddHistogram("d", "", {1, 1}), "ascend strictly");
}

TEST(HistogramSnapshot, QuantileIsLinearInsideABucket) {
  Histogram histogram({1, 2, 4});
  for (int i = 0; i < 10; ++i) histogram.Observe(1.5);
  for (int i = 0; i < 10; ++i) histogram.Observe(3);
  const HistogramSnapshot snapshot = histogram.Snapshot();
  EXPECT_DOUBLE_EQ(snapshot.Quantile(0.25), 1.5);
  EXPECT_DOUBLE_EQ(snapshot.Quantile(0.5), 2);
  EXPECT_DOUBLE_EQ(snapshot.Quantile(0.75), 3);
  EXPECT_DOUBLE_EQ(snapshot.Quantile(1), 4);
}

TEST(HistogramSnapshot, QuantileOfNothingAndOfTheOpenEnd) {
  Histogram histogram({1, 2});
  EXPECT_TRUE(std::isnan(histogram.Snapshot().Quantile(0.5)));
  histogram.Observe(100);
  histogram.Observe(std::nan(""));
  EXPECT_DOUBLE_EQ(histogram.Snapshot().Quantile(0.5), 2);
  EXPECT_DOUBLE_EQ(histogram.Snapshot().sum, 100);
}

TEST(ExponentialBounds, Multiply) {
  EXPECT_EQ(ExponentialBounds(1, 2, 4), (std::vector<double>{1, 2, 4, 8}));
}

}  // namespace
}  // namespace tarn::metrics
