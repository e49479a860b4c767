#pragma once

// How long a step of a model takes, learned from the steps that ran:
//
//   time = base + per_token * tokens + per_attended * attended
//
// where `attended` counts for each new token the tokens before it, so it stands for the quadratic
// part of attention in a prefill, and for the KV that a decode step reads. Least squares over all
// steps, older ones counting less, with all three parts at least zero (a fit that says that more
// work takes less time would be believed by a router). Pure, thread-compatible.

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace tarn {

// Microseconds; all zero: nothing measured.
struct StepTime {
  double base_us = 0;
  double us_per_token = 0;
  double us_per_attended = 0;

  bool measured() const { return base_us + us_per_token + us_per_attended > 0; }
  // Of one step.
  double Predict(double tokens, double attended) const {
    return base_us + us_per_token * tokens + us_per_attended * attended;
  }
  // Of that much work in steps of `step_tokens` (> 0).
  double PredictInSteps(double tokens, double attended, double step_tokens) const {
    return base_us * tokens / step_tokens + us_per_token * tokens + us_per_attended * attended;
  }
};

// What tokens [begin, end) of a sequence attend to, themselves not counted.
inline double AttendedBy(double begin, double end) { return (end - begin) * (begin + end - 1) / 2; }

class StepTimeFit {
 public:
  // What equal steps, of which nothing else can be learned, are taken to be: so much work (a
  // prefill, which computes), or one fixed cost (a decode step, which reads all weights).
  enum class Prior : uint8_t { kWork, kFixedCost };

  // A step counts half after `half_life` more of them.
  explicit StepTimeFit(Prior prior, double half_life = 200);

  void Add(double tokens, double attended, absl::Duration elapsed);
  // The best fit so far.
  StepTime Fit() const;

 private:
  static constexpr int kTerms = 3;
  using Terms = std::array<double, kTerms>;

  // The fit that uses only the terms in `mask`; false if a part of it is negative.
  bool Solve(unsigned mask, Terms& solution) const;
  // Squared errors, but for a constant.
  double ErrorOf(const Terms& solution) const;

  Prior prior_;
  double keep_;
  // Sums over steps of x * x^T, x * y; and of the largest of each term, which makes them
  // comparable.
  std::array<Terms, kTerms> products_{};
  Terms targets_{};
  Terms scale_{};
};

}  // namespace tarn
