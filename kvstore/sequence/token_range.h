#pragma once

// Positions in a sequence. A plain value.

namespace tarn::kvstore {

struct TokenRange {
  int begin = 0;
  int end = 0;  // one past the last

  int size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

}  // namespace tarn::kvstore
