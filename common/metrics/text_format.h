#pragma once

// Prometheus' text exposition format 0.0.4.
// https://prometheus.io/docs/instrumenting/exposition_formats/

#include <string>
#include <vector>

namespace tarn::metrics {

// [a-zA-Z_:][a-zA-Z0-9_:]*
bool IsMetricName(const std::string& name);

// [a-zA-Z_][a-zA-Z0-9_]*, and not starting with "__", which Prometheus keeps for itself.
bool IsLabelName(const std::string& name);

// Appends one metric to a text. Borrows everything it is given.
class TextWriter {
 public:
  // Writes the HELP and TYPE lines.
  TextWriter(const std::string& name, const std::string& help, const std::string& type,
             const std::vector<std::string>& label_names, std::string& out);

  // One line; `suffix` is "", "_sum" or "_count". One value per label name.
  void Sample(const char* suffix, const std::vector<std::string>& label_values, double value);

  // A histogram's bucket up to and with `bound`.
  void Bucket(const std::vector<std::string>& label_values, double bound, double value);

 private:
  void Line(const char* suffix, const std::vector<std::string>& label_values, const double* bound,
            double value);

  const std::string& name_;
  const std::vector<std::string>& label_names_;
  std::string& out_;
};

}  // namespace tarn::metrics
