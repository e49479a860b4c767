#include "sim/planner/planner.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace tarn::sim {
namespace {

PlanOptions Options() {
  PlanOptions options;
  options.model = *FindModel("Qwen3-8B");
  options.hardware = *FindHardware("h200");
  options.slo = {absl::Seconds(3), absl::Milliseconds(50)};
  options.memories = {{0, 0}, {100e9, 0}};
  options.max_nodes = 12;
  return options;
}

Workload Load(double sessions_per_second) {
  SessionOptions sessions;
  sessions.duration = absl::Minutes(4);
  sessions.sessions_per_second = sessions_per_second;
  sessions.mean_think_time = absl::Seconds(20);
  return MakeSessions(sessions);
}

TEST(MakePlan, RecommendsTheCheapestShapeThatMeetsTheSlo) {
  PlanOptions options = Options();
  size_t told = 0;
  options.progress = [&told](size_t done, const std::string&) { EXPECT_EQ(done, told++); };
  const auto plan = MakePlan(Load(6), options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->shapes.size(), told);
  ASSERT_TRUE(plan->best.has_value()) << PlanTable(*plan);
  const PlannedShape& best = plan->shapes[*plan->best];
  EXPECT_GE(best.summary.good_share, 0.9);
  for (const PlannedShape& shape : plan->shapes) {
    EXPECT_FALSE(shape.limit.empty());
    EXPECT_LE(shape.shape.nodes(), options.max_nodes);
    if (shape.meets) {
      EXPECT_GE(shape.dollars_per_hour, best.dollars_per_hour);
    }
  }
  EXPECT_NE(plan->advice.find(best.shape.ToText()), std::string::npos);
  // What it costs: nodes x price over the tokens of an hour.
  EXPECT_DOUBLE_EQ(best.dollars_per_hour, best.shape.nodes() * 3.5);
}

TEST(MakePlan, PricesOfMemoryCount) {
  PlanOptions options = Options();
  options.memories = {{100 * double{1 << 30}, double{1 << 30} * 1024}};
  options.dollars_per_dram_gib_hour = 0.01;
  options.dollars_per_ssd_tib_hour = 0.5;
  const auto plan = MakePlan(Load(1), options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedShape& first = plan->shapes.front();
  EXPECT_DOUBLE_EQ(first.dollars_per_hour, first.shape.nodes() * (3.5 + 1 + 0.5));
}

TEST(MakePlan, SaysWhatIsLackingWhereNothingIsEnough) {
  PlanOptions options = Options();
  options.max_nodes = 3;
  const auto plan = MakePlan(Load(30), options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->best.has_value());
  EXPECT_NE(plan->advice.find("No shape"), std::string::npos);
}

TEST(PlanOutput, IsForPeopleAndPrograms) {
  const auto plan = MakePlan(Load(2), Options());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto json = nlohmann::json::parse(PlanJson(*plan));
  EXPECT_EQ(json["shapes"].size(), plan->shapes.size());
  EXPECT_EQ(json["best"], *plan->best);
  EXPECT_EQ(json["shapes"][*plan->best]["meets_slo"], true);
  EXPECT_NE(PlanTable(*plan).find("<== best"), std::string::npos);
  const std::string svg = PlanSvg(*plan);
  EXPECT_NE(svg.find("coupled"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(MakePlan, RefusesWhatCannotBePlanned) {
  EXPECT_TRUE(absl::IsInvalidArgument(MakePlan(Workload(), Options()).status()));
  PlanOptions options = Options();
  options.model = *FindModel("DeepSeek-V3");
  EXPECT_TRUE(absl::IsInvalidArgument(MakePlan(Load(1), options).status()));
}

}  // namespace
}  // namespace tarn::sim
