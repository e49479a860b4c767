#include "common/base/step_time.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace tarn {
namespace {

// Of the mean square of a term. Where steps are all alike the terms cannot be told apart, and these
// settle it.
constexpr std::array<double, 3> kForWork = {1e-3, 1e-6, 1e-6};
constexpr std::array<double, 3> kForFixedCost = {1e-6, 1e-3, 1e-3};

}  // namespace

StepTimeFit::StepTimeFit(Prior prior, double half_life)
    : prior_(prior), keep_(std::exp2(-1 / half_life)) {}

void StepTimeFit::Add(double tokens, double attended, absl::Duration elapsed) {
  const Terms x = {1, tokens, attended};
  const double y = absl::ToDoubleMicroseconds(elapsed);
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) products_[i][j] = keep_ * products_[i][j] + x[i] * x[j];
    targets_[i] = keep_ * targets_[i] + x[i] * y;
    scale_[i] = std::max(scale_[i], x[i]);
  }
}

// Gaussian elimination on the scaled normal equations.
bool StepTimeFit::Solve(unsigned mask, Terms& solution) const {
  double rows[kTerms][kTerms + 1];
  int term[kTerms];
  int n = 0;
  for (int i = 0; i < kTerms; ++i) {
    if ((mask >> i & 1) != 0) term[n++] = i;
  }
  for (int r = 0; r < n; ++r) {
    const int i = term[r];
    if (scale_[i] <= 0) return false;
    for (int c = 0; c < n; ++c) {
      rows[r][c] = products_[i][term[c]] / (scale_[i] * scale_[term[c]]);
    }
    const auto& ridge = prior_ == Prior::kWork ? kForWork : kForFixedCost;
    rows[r][r] *= 1 + ridge[static_cast<size_t>(i)];
    rows[r][n] = targets_[i] / scale_[i];
  }
  for (int r = 0; r < n; ++r) {
    int pivot = r;
    for (int k = r + 1; k < n; ++k) {
      if (std::abs(rows[k][r]) > std::abs(rows[pivot][r])) pivot = k;
    }
    if (std::abs(rows[pivot][r]) < 1e-12) return false;
    std::swap(rows[r], rows[pivot]);
    for (int k = 0; k < n; ++k) {
      if (k == r) continue;
      const double factor = rows[k][r] / rows[r][r];
      for (int c = r; c <= n; ++c) rows[k][c] -= factor * rows[r][c];
    }
  }
  solution = {};
  for (int r = 0; r < n; ++r) {
    solution[term[r]] = rows[r][n] / rows[r][r] / scale_[term[r]];
    if (solution[term[r]] < 0) return false;
  }
  return true;
}

double StepTimeFit::ErrorOf(const Terms& solution) const {
  double error = 0;
  for (int i = 0; i < kTerms; ++i) {
    error -= 2 * solution[i] * targets_[i];
    for (int j = 0; j < kTerms; ++j) error += solution[i] * solution[j] * products_[i][j];
  }
  return error;
}

// With three terms all their subsets are tried: the best that is nowhere negative is the answer.
StepTime StepTimeFit::Fit() const {
  Terms best{};
  double least = std::numeric_limits<double>::infinity();
  for (unsigned mask = 1; mask < 1u << kTerms; ++mask) {
    Terms solution;
    if (!Solve(mask, solution)) continue;
    const double error = ErrorOf(solution);
    if (error >= least) continue;
    least = error;
    best = solution;
  }
  return {best[0], best[1], best[2]};
}

}  // namespace tarn
