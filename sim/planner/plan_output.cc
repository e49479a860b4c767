// A plan as a table, as JSON and as a picture.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "sim/planner/planner.h"
#include "sim/report/chart.h"

namespace tarn::sim {
namespace {

nlohmann::ordered_json ToJson(const Spread& spread) {
  return {{"mean", spread.mean}, {"p50", spread.p50}, {"p90", spread.p90}, {"p99", spread.p99}};
}

nlohmann::ordered_json ToJson(const PlannedShape& planned) {
  const RunSummary& s = planned.summary;
  nlohmann::ordered_json json;
  json["prefill_nodes"] = planned.shape.prefill_nodes;
  json["decode_nodes"] = planned.shape.decode_nodes;
  json["coupled_nodes"] = planned.shape.coupled_nodes;
  json["dram_bytes_per_node"] = planned.shape.memory.dram_bytes;
  json["ssd_bytes_per_node"] = planned.shape.memory.ssd_bytes;
  json["meets_slo"] = planned.meets;
  json["limit"] = planned.limit;
  json["requests"] = s.requests;
  json["completed"] = s.done;
  json["good_share"] = s.good_share;
  json["goodput_per_s"] = s.good_per_s;
  json["reused_token_share"] = s.reused_tokens;
  json["ttft_s"] = ToJson(s.ttft_s);
  json["tpot_ms"] = ToJson(s.tpot_ms);
  json["prefill_busy"] = planned.prefill.busy;
  json["decode_busy"] = planned.decode.busy;
  json["network_use"] = planned.network_use;
  json["dollars_per_hour"] = planned.dollars_per_hour;
  json["dollars_per_million_tokens"] = planned.dollars_per_million_tokens;
  return json;
}

}  // namespace

std::string PlanTable(const Plan& plan) {
  std::string table =
      absl::StrFormat("%-38s %4s %6s %6s %8s %8s %8s %8s %7s %7s %8s %8s  %s\n", "shape", "SLO",
                      "good", "reuse", "TTFT p50", "TTFT p90", "TPOT p50", "TPOT p90", "prefill",
                      "decode", "$/h", "$/M tok", "limit");
  for (size_t i = 0; i < plan.shapes.size(); ++i) {
    const PlannedShape& planned = plan.shapes[i];
    const RunSummary& s = planned.summary;
    absl::StrAppendFormat(
        &table,
        "%-38s %4s %5.1f%% %5.1f%% %6.2f s %6.2f s %5.1f ms %5.1f ms %6.0f%% %6.0f%% %8.2f %8.4f  "
        "%s%s\n",
        planned.shape.ToText(), planned.meets ? "yes" : "no", 100 * s.good_share,
        100 * s.reused_tokens, s.ttft_s.p50, s.ttft_s.p90, s.tpot_ms.p50, s.tpot_ms.p90,
        100 * planned.prefill.busy, 100 * planned.decode.busy, planned.dollars_per_hour,
        planned.dollars_per_million_tokens, planned.limit, plan.best == i ? "  <== best" : "");
  }
  return table;
}

std::string PlanJson(const Plan& plan) {
  nlohmann::ordered_json json;
  json["advice"] = plan.advice;
  json["best"] = nullptr;
  if (plan.best.has_value()) json["best"] = *plan.best;
  json["shapes"] = nlohmann::ordered_json::array();
  for (const PlannedShape& planned : plan.shapes) json["shapes"].push_back(ToJson(planned));
  return json.dump(2);
}

std::string PlanSvg(const Plan& plan) {
  std::map<std::string, ChartLine> lines;
  for (const PlannedShape& planned : plan.shapes) {
    Shape kind = planned.shape;
    const bool coupled = kind.coupled_nodes > 0;
    const std::string name =
        absl::StrFormat("%s, %.0f+%.0f GiB", coupled ? "coupled" : "P:D",
                        kind.memory.dram_bytes / (1 << 30), kind.memory.ssd_bytes / (1 << 30));
    ChartLine& line = lines[name];
    line.name = name;
    line.dashed = coupled;
    line.points.emplace_back(std::max(planned.dollars_per_hour, 0.01),
                             100 * planned.summary.good_share);
  }
  Chart chart{.title = "Requests within the SLO by price of the cluster",
              .x_label = "$ an hour",
              .y_label = "% of requests"};
  for (auto& [name, line] : lines) {
    std::sort(line.points.begin(), line.points.end());
    line.color = static_cast<int>(chart.lines.size());
    chart.lines.push_back(std::move(line));
  }
  return ToSvg(chart);
}

}  // namespace tarn::sim
