#include "sim/workload/trace.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::sim {
namespace {

absl::StatusOr<TraceRequest> ParseLine(const std::string& text) {
  const nlohmann::json line = nlohmann::json::parse(text);
  TraceRequest request;
  request.at = absl::Milliseconds(line.at("timestamp").get<int64_t>());
  request.input_tokens = line.at("input_length").get<int>();
  request.output_tokens = line.at("output_length").get<int>();
  request.hash_ids = line.at("hash_ids").get<std::vector<int64_t>>();
  if (request.input_tokens < 1 || request.output_tokens < 0 || request.hash_ids.empty()) {
    return absl::InvalidArgumentError(
        "input_length must be at least 1, output_length at least 0, hash_ids not empty");
  }
  return request;
}

}  // namespace

absl::StatusOr<std::vector<TraceRequest>> ParseTrace(const std::string& jsonl, size_t limit) {
  std::vector<TraceRequest> trace;
  std::istringstream lines(jsonl);
  std::string text;
  for (int number = 1; std::getline(lines, text); ++number) {
    if (limit > 0 && trace.size() == limit) break;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = absl::StrCat("line ", number);
    try {
      auto request = ParseLine(text);
      if (!request.ok()) return Annotate(request.status(), where);
      trace.push_back(*std::move(request));
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(where + ": " + error.what());
    }
  }
  return trace;
}

absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path, size_t limit) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("no trace at \"" + path + "\"");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  auto trace = ParseTrace(text, limit);
  if (!trace.ok()) return Annotate(trace.status(), path);
  return trace;
}

void SpreadArrivals(std::vector<TraceRequest>* requests) {
  constexpr absl::Duration kBucket = absl::Seconds(3);
  for (size_t first = 0; first < requests->size();) {
    const absl::Duration at = (*requests)[first].at;
    size_t end = first + 1;
    while (end < requests->size() && (*requests)[end].at == at) ++end;
    const absl::Duration next = end < requests->size() ? (*requests)[end].at : at + kBucket;
    for (size_t i = first; i < end; ++i) {
      (*requests)[i].at =
          at + (next - at) * (static_cast<double>(i - first) / static_cast<double>(end - first));
    }
    first = end;
  }
}

}  // namespace tarn::sim
