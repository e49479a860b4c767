#include "sim/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_format.h"

namespace tarn::sim {
namespace {

constexpr double kWidth = 760, kHeight = 440, kLeft = 60, kRight = 590, kTop = 44, kBottom = 390;
constexpr std::array<const char*, 5> kColors = {"#777777", "#c2410c", "#1d4ed8", "#15803d",
                                                "#7e22ce"};

// Where values lie on the picture.
class Scale {
 public:
  explicit Scale(const Chart& chart) {
    for (const ChartLine& line : chart.lines) {
      for (const auto& [x, y] : line.points) {
        least_x_ = std::min(least_x_, std::log10(x));
        most_x_ = std::max(most_x_, std::log10(x));
        most_y_ = std::max(most_y_, y);
      }
    }
    most_y_ = 5 * std::ceil(most_y_ / 5);
  }
  double X(double x) const {
    return kLeft + (kRight - kLeft) * (std::log10(x) - least_x_) / (most_x_ - least_x_);
  }
  double Y(double y) const { return kBottom - (kBottom - kTop) * y / most_y_; }
  double most_y() const { return most_y_; }

 private:
  double least_x_ = 1e9, most_x_ = -1e9, most_y_ = 1;
};

std::string Text(double x, double y, const std::string& text, const char* more) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, more, text);
}

std::string Grid(const Chart& chart, const Scale& scale) {
  std::string svg;
  for (double y = 0; y <= scale.most_y(); y += 5) {
    svg += absl::StrFormat("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#dddddd\"/>\n", kLeft, scale.Y(y),
                           kRight);
    svg += Text(kLeft - 8, scale.Y(y) + 4, absl::StrFormat("%g", y), "text-anchor=\"end\"");
  }
  for (const auto& point : chart.lines.front().points) {
    svg += absl::StrFormat("<path d=\"M%.1f %.1fV%.1f\" stroke=\"#eeeeee\"/>\n",
                           scale.X(point.first), kTop, kBottom);
    const std::string value = point.first >= 1000 ? absl::StrFormat("%gk", point.first / 1000)
                                                  : absl::StrFormat("%g", point.first);
    svg += Text(scale.X(point.first), kBottom + 18, value, "text-anchor=\"middle\"");
  }
  return svg;
}

std::string Path(const ChartLine& line, const Scale& scale) {
  std::string path;
  for (const auto& [x, y] : line.points) {
    path += absl::StrFormat("%c%.1f %.1f", path.empty() ? 'M' : 'L', scale.X(x), scale.Y(y));
  }
  return absl::StrFormat("<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n",
                         path, kColors[line.color % kColors.size()],
                         line.dashed ? " stroke-dasharray=\"5 4\"" : "");
}

std::string Legend(const Chart& chart) {
  std::string svg;
  double y = kTop + 10;
  for (const ChartLine& line : chart.lines) {
    svg += absl::StrFormat("<path d=\"M%.1f %.1fh22\" stroke=\"%s\" stroke-width=\"2\"%s/>\n",
                           kRight + 14, y - 4, kColors[line.color % kColors.size()],
                           line.dashed ? " stroke-dasharray=\"5 4\"" : "");
    svg += Text(kRight + 42, y, line.name, "");
    y += 20;
  }
  return svg;
}

}  // namespace

std::string ToSvg(const Chart& chart) {
  const Scale scale(chart);
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" font-size=\"12\" "
      "font-family=\"sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += Text(kLeft, 24, chart.title, "font-size=\"15\"");
  svg += Grid(chart, scale);
  for (const ChartLine& line : chart.lines) svg += Path(line, scale);
  svg += Legend(chart);
  svg += Text((kLeft + kRight) / 2, kHeight - 12, chart.x_label, "text-anchor=\"middle\"");
  svg += Text(14, kTop - 8, chart.y_label, "");
  return svg + "</svg>\n";
}

}  // namespace tarn::sim
