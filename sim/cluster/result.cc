#include "sim/cluster/result.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"

namespace tarn::sim {

std::string RunResult::ToText() const {
  std::string text = absl::StrFormat(
      "duration %d prefill %.9f decode %.9f fetched %.0f handed %.0f copied %.0f wasted %.0f\n",
      absl::ToInt64Nanoseconds(duration), prefill.busy, decode.busy, fetched_bytes, handed_bytes,
      copied_bytes, wasted_tokens);
  for (const Outcome& o : requests) {
    absl::StrAppendFormat(&text, "%d %d %d %d %d %d %d %d %d %d %d\n", static_cast<int>(o.end),
                          o.matched_blocks, o.hbm_tokens, o.dram_tokens, o.ssd_tokens,
                          o.remote_tokens, o.output_tokens, absl::ToInt64Nanoseconds(o.ttft),
                          absl::ToInt64Nanoseconds(o.tpot), absl::ToInt64Nanoseconds(o.worst_gap),
                          absl::ToInt64Nanoseconds(o.predicted_ttft));
  }
  return text;
}

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const double rank = share * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(rank);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (rank - static_cast<double>(low)) * (values[high] - values[low]);
  };
  double sum = 0;
  for (const double value : values) sum += value;
  return {sum / static_cast<double>(values.size()), at(0.5), at(0.9), at(0.99)};
}

RunSummary Summarize(const RunResult& result, const Slo& slo) {
  RunSummary summary;
  std::vector<double> ttft, tpot, gaps, errors;
  double blocks = 0, matched = 0, prompt = 0, hbm = 0, dram = 0, ssd = 0, remote = 0;
  for (const Outcome& o : result.requests) {
    ++summary.requests;
    summary.rejected += o.end == Request::End::kRejected;
    summary.rejected_late += o.end == Request::End::kRejectedLate;
    summary.too_long += o.end == Request::End::kTooLong;
    blocks += o.blocks;
    matched += o.matched_blocks;
    if (!o.done()) continue;
    ++summary.done;
    summary.good += o.good(slo);
    ttft.push_back(absl::ToDoubleSeconds(o.ttft));
    if (o.output_tokens > 1) {
      tpot.push_back(absl::ToDoubleMilliseconds(o.tpot));
      gaps.push_back(absl::ToDoubleMilliseconds(o.worst_gap));
    }
    if (o.predicted_ttft > absl::ZeroDuration() && o.ttft > absl::ZeroDuration()) {
      errors.push_back(std::abs(absl::FDivDuration(o.predicted_ttft - o.ttft, o.ttft)));
    }
    prompt += o.input_tokens;
    summary.output_tokens += o.output_tokens;
    hbm += o.hbm_tokens;
    dram += o.dram_tokens;
    ssd += o.ssd_tokens;
    remote += o.remote_tokens;
  }
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  const double seconds = absl::ToDoubleSeconds(result.duration);
  summary.good_share = share(summary.good, summary.requests);
  summary.ttft_s = SpreadOf(std::move(ttft));
  summary.tpot_ms = SpreadOf(std::move(tpot));
  summary.worst_gap_ms = SpreadOf(std::move(gaps));
  summary.block_hits = share(matched, blocks);
  summary.reused_tokens = share(hbm + dram + ssd + remote, prompt);
  summary.hbm_tokens = share(hbm, prompt);
  summary.dram_tokens = share(dram, prompt);
  summary.ssd_tokens = share(ssd, prompt);
  summary.remote_tokens = share(remote, prompt);
  summary.requests_per_s = share(summary.done, seconds);
  summary.good_per_s = share(summary.good, seconds);
  summary.input_tokens = prompt;
  summary.ttft_error = SpreadOf(std::move(errors)).p50;
  return summary;
}

}  // namespace tarn::sim
