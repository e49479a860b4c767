#pragma once

// Lines over a logarithmic axis, as an SVG picture of a few KiB.

#include <string>
#include <utility>
#include <vector>

namespace tarn::sim {

struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  // by x; x > 0
  bool dashed = false;
  int color = 0;  // equal numbers have equal colours
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartLine> lines;
};

// With a legend, and marks on x where the first line has its points. y starts at 0.
std::string ToSvg(const Chart& chart);

}  // namespace tarn::sim
