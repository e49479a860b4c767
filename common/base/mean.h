#pragma once

// The mean of the positive values it is given: others mean "not measured".

namespace tarn {

class PositiveMean {
 public:
  void Add(double value) {
    if (value <= 0) return;
    sum_ += value;
    ++count_;
  }
  double Or(double otherwise) const { return count_ > 0 ? sum_ / count_ : otherwise; }

 private:
  double sum_ = 0;
  int count_ = 0;
};

}  // namespace tarn
