#include "common/metrics/text_format.h"

#include <glog/logging.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace tarn::metrics {
namespace {

// Not std::isalpha: it depends on the locale.
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Quotes are escaped in label values and not in help texts.
void AppendEscaped(const std::string& text, bool quotes, std::string& out) {
  for (char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || (quotes && c == '"')) out += '\\';
    out += c;
  }
}

void AppendNumber(double value, std::string& out) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
    out.append(buffer, end);
  }
}

}  // namespace

bool IsMetricName(const std::string& name) {
  return !name.empty() && !IsDigit(name[0]) && std::all_of(name.begin(), name.end(), [](char c) {
    return IsLetter(c) || IsDigit(c) || c == ':';
  });
}

bool IsLabelName(const std::string& name) {
  return IsMetricName(name) && name.find(':') == std::string::npos && name.rfind("__", 0) != 0;
}

TextWriter::TextWriter(const std::string& name, const std::string& help, const std::string& type,
                       const std::vector<std::string>& label_names, std::string& out)
    : name_(name), label_names_(label_names), out_(out) {
  out_ += "# HELP " + name + " ";
  AppendEscaped(help, /*quotes=*/false, out_);
  out_ += "\n# TYPE " + name + " " + type + "\n";
}

void TextWriter::Sample(const char* suffix, const std::vector<std::string>& label_values,
                        double value) {
  Line(suffix, label_values, nullptr, value);
}

void TextWriter::Bucket(const std::vector<std::string>& label_values, double bound, double value) {
  Line("_bucket", label_values, &bound, value);
}

void TextWriter::Line(const char* suffix, const std::vector<std::string>& label_values,
                      const double* bound, double value) {
  CHECK_EQ(label_values.size(), label_names_.size()) << name_ << ": one value per label name";
  out_ += name_;
  out_ += suffix;
  char separator = '{';
  for (size_t i = 0; i < label_values.size(); ++i) {
    out_ += separator + label_names_[i] + "=\"";
    AppendEscaped(label_values[i], /*quotes=*/true, out_);
    out_ += '"';
    separator = ',';
  }
  if (bound != nullptr) {
    out_ += separator;
    out_ += "le=\"";
    AppendNumber(*bound, out_);
    out_ += '"';
    separator = ',';
  }
  out_ += separator == ',' ? "} " : " ";
  AppendNumber(value, out_);
  out_ += '\n';
}

}  // namespace tarn::metrics
