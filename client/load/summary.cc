#include "client/load/summary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tarn::client {
namespace {

constexpr size_t kMaxErrors = 5;

double Percentile(const std::vector<double>& sorted, double fraction) {
  const double rank = fraction * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(std::floor(rank));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

bool IsGood(const RequestRecord& record, const Goals& goals) {
  return (goals.ttft_ms <= 0 || record.ttft_ms <= goals.ttft_ms) &&
         (goals.tpot_ms <= 0 || record.tpot_ms() <= goals.tpot_ms) &&
         (goals.e2e_ms <= 0 || record.e2e_ms <= goals.e2e_ms);
}

void NoteError(const std::string& error, std::vector<std::string>& errors) {
  if (errors.size() < kMaxErrors &&
      std::find(errors.begin(), errors.end(), error) == errors.end()) {
    errors.push_back(error);
  }
}

}  // namespace

Distribution DistributionOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += value;
  return {.mean = sum / static_cast<double>(values.size()),
          .median = Percentile(values, 0.5),
          .p90 = Percentile(values, 0.9),
          .p99 = Percentile(values, 0.99)};
}

Summary Summarize(const std::vector<RequestRecord>& records, absl::Duration duration,
                  const Goals& goals) {
  Summary summary;
  summary.duration_s = absl::ToDoubleSeconds(duration);
  std::vector<double> ttft, tpot, itl, e2e, prediction;
  for (const RequestRecord& record : records) {
    if (!record.ok) {
      ++summary.failed;
      NoteError(record.error, summary.errors);
      continue;
    }
    ++summary.completed;
    summary.good += IsGood(record, goals);
    summary.input_tokens += record.prompt_tokens;
    summary.cached_tokens += record.cached_tokens;
    summary.output_tokens += record.output_tokens;
    ttft.push_back(record.ttft_ms);
    e2e.push_back(record.e2e_ms);
    if (record.output_tokens > 1) tpot.push_back(record.tpot_ms());
    itl.insert(itl.end(), record.itl_ms.begin(), record.itl_ms.end());
    if (record.ttft_ms > 0 && record.predicted_ttft_ms > 0) {
      prediction.push_back(std::abs(record.predicted_ttft_ms - record.ttft_ms) / record.ttft_ms);
    }
  }
  summary.ttft_ms = DistributionOf(std::move(ttft));
  summary.tpot_ms = DistributionOf(std::move(tpot));
  summary.itl_ms = DistributionOf(std::move(itl));
  summary.e2e_ms = DistributionOf(std::move(e2e));
  summary.ttft_prediction_error = DistributionOf(std::move(prediction)).median;
  return summary;
}

std::string SummaryTable(const Summary& s) {
  std::string text;
  const auto count = [&](const char* name, double value, const char* format) {
    absl::StrAppend(
        &text, absl::StrFormat("%-40s", name),
        format[0] == 'd' ? absl::StrFormat("%12.0f", value) : absl::StrFormat("%12.2f", value),
        "\n");
  };
  const auto row = [&](const char* name, const Distribution& d) {
    absl::StrAppend(&text, absl::StrFormat("%-10s%12.2f%12.2f%12.2f%12.2f\n", name, d.mean,
                                           d.median, d.p90, d.p99));
  };
  count("Successful requests", s.completed, "d");
  count("Failed requests", s.failed, "d");
  count("Benchmark duration (s)", s.duration_s, "f");
  count("Total input tokens", static_cast<double>(s.input_tokens), "d");
  count("Cached input tokens", static_cast<double>(s.cached_tokens), "d");
  count("Total generated tokens", static_cast<double>(s.output_tokens), "d");
  count("Request throughput (req/s)", s.request_throughput(), "f");
  count("Request goodput (req/s)", s.goodput(), "f");
  count("Output token throughput (tok/s)", s.output_throughput(), "f");
  count("Total token throughput (tok/s)", s.total_token_throughput(), "f");
  count("TTFT prediction error, median (%)", 100 * s.ttft_prediction_error, "f");
  absl::StrAppend(&text,
                  absl::StrFormat("%-10s%12s%12s%12s%12s\n", "ms", "mean", "median", "p90", "p99"));
  row("TTFT", s.ttft_ms);
  row("TPOT", s.tpot_ms);
  row("ITL", s.itl_ms);
  row("E2E", s.e2e_ms);
  for (const std::string& error : s.errors) absl::StrAppend(&text, "error: ", error, "\n");
  return text;
}

std::string SummaryJson(const Summary& s) {
  nlohmann::json json = {{"duration", s.duration_s},
                         {"completed", s.completed},
                         {"failed", s.failed},
                         {"total_input_tokens", s.input_tokens},
                         {"cached_input_tokens", s.cached_tokens},
                         {"total_output_tokens", s.output_tokens},
                         {"request_throughput", s.request_throughput()},
                         {"request_goodput", s.goodput()},
                         {"output_throughput", s.output_throughput()},
                         {"total_token_throughput", s.total_token_throughput()},
                         {"ttft_prediction_error", s.ttft_prediction_error},
                         {"errors", s.errors}};
  const auto add = [&](const std::string& name, const Distribution& d) {
    json["mean_" + name + "_ms"] = d.mean;
    json["median_" + name + "_ms"] = d.median;
    json["p90_" + name + "_ms"] = d.p90;
    json["p99_" + name + "_ms"] = d.p99;
  };
  add("ttft", s.ttft_ms);
  add("tpot", s.tpot_ms);
  add("itl", s.itl_ms);
  add("e2el", s.e2e_ms);
  return json.dump(2);
}

}  // namespace tarn::client
