#include "engine/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tarn::engine {
namespace {

// The state behind `seen` matched bytes and one more.
size_t Next(const std::string& text, const std::vector<size_t>& fallback, size_t seen, char byte) {
  while (seen > 0 && (seen == text.size() || text[seen] != byte)) seen = fallback[seen];
  return text[seen] == byte ? seen + 1 : 0;
}

std::vector<size_t> Fallbacks(const std::string& text) {
  std::vector<size_t> fallback(text.size() + 1, 0);
  for (size_t n = 2; n <= text.size(); ++n) {
    fallback[n] = Next(text, fallback, fallback[n - 1], text[n - 1]);
  }
  return fallback;
}

}  // namespace

absl::StatusOr<StopMatcher> StopMatcher::Create(std::vector<std::string> stops, bool include_stop) {
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) return absl::InvalidArgumentError(absl::StrCat("stop[", i, "] is empty"));
  }
  return StopMatcher(std::move(stops), include_stop);
}

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  for (std::string& text : stops) {
    std::vector<size_t> fallback = Fallbacks(text);
    stops_.push_back({std::move(text), std::move(fallback)});
  }
}

bool StopMatcher::Advance(char byte) {
  for (size_t i = 0; i < stops_.size(); ++i) {
    Stop& stop = stops_[i];
    stop.seen = Next(stop.text, stop.fallback, stop.seen, byte);
    if (stop.seen < stop.text.size()) continue;
    if (!matched_ || stop.text.size() > stops_[*matched_].text.size()) matched_ = i;
  }
  return matched_.has_value();
}

std::string StopMatcher::Push(std::string_view piece) {
  if (matched_) return "";
  for (const char byte : piece) {
    held_.push_back(byte);
    if (!Advance(byte)) continue;
    if (!include_stop_) held_.resize(held_.size() - stops_[*matched_].text.size());
    return std::exchange(held_, "");
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.seen);
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::Flush() { return std::exchange(held_, ""); }

}  // namespace tarn::engine
