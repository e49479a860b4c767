#pragma once

// Stops a stream of text at the first of some strings.
//
// Text that may be the beginning of a stop string is held back until it is known. The match that
// ends first wins, and of those that end together the longest: so the outcome does not depend on
// how the text was cut into pieces. Knuth-Morris-Pratt, one state for each stop string.
// Thread-compatible; nothing blocks.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn::engine {

class StopMatcher {
 public:
  // With `include_stop`, the stop string itself is part of the text. INVALID_ARGUMENT: a stop
  // string is empty (names its index).
  static absl::StatusOr<StopMatcher> Create(std::vector<std::string> stops, bool include_stop);

  // The text that is now certain. Valid UTF-8 if the stop strings and all pieces are. After a
  // match: empty.
  std::string Push(std::string_view piece);

  // The text's end: what was held back.
  std::string Flush();

  // The index of the stop string that was found.
  std::optional<int> matched() const { return matched_; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // [n]: the longest border of the first n bytes
    size_t seen = 0;               // bytes of `text` that the stream ends with
  };

  StopMatcher(std::vector<std::string> stops, bool include_stop);
  // Whether `byte` completes a stop string; then sets matched_.
  bool Advance(char byte);

  std::vector<Stop> stops_;
  bool include_stop_;
  std::string held_;
  std::optional<int> matched_;
};

}  // namespace tarn::engine
