#include "sim/report/chart.h"

#include <gtest/gtest.h>

namespace tarn::sim {
namespace {

TEST(ChartTest, DrawsEveryLine) {
  const std::string svg = ToSvg({.title = "t",
                                 .lines = {{.name = "one", .points = {{1, 2}, {10, 4}}},
                                           {.name = "two", .points = {{1, 1}}}}});
  EXPECT_NE(svg.find("one"), std::string::npos);
  EXPECT_NE(svg.find("two"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace tarn::sim
