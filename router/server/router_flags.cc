#include "router/server/router_flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace tarn::router {
namespace {

// The name may hold anything, an "=" as well.
bool SplitName(const std::string& text, std::string& name, std::string& value) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) return false;
  name = text.substr(0, equals);
  value = text.substr(equals + 1);
  return true;
}

bool ParseLimit(const std::string& text, absl::Duration& limit) {
  return text == "-" || (absl::ParseDuration(text, &limit) && limit > absl::ZeroDuration());
}

template <typename Value>
absl::Status Insert(const char* flag, std::map<std::string, Value>& values, const std::string& name,
                    const Value& value) {
  if (values.emplace(name, value).second) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, " names \"", name, "\" twice"));
}

}  // namespace

absl::StatusOr<std::map<std::string, Slo>> ParseServiceClasses(
    const std::vector<std::string>& flags) {
  std::map<std::string, Slo> classes;
  for (const std::string& text : flags) {
    std::string name, value;
    Slo slo;
    bool good = SplitName(text, name, value);
    if (good) {
      const std::vector<std::string> parts = absl::StrSplit(value, ',');
      good = parts.size() == 2 && ParseLimit(parts[0], slo.ttft) && ParseLimit(parts[1], slo.tpot);
    }
    if (!good) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--service-class is \"", text,
          "\"; write NAME=500ms,50ms: time to first token, time per token; - for none"));
    }
    RETURN_IF_ERROR(Insert("--service-class", classes, name, slo));
  }
  return classes;
}

absl::StatusOr<std::map<std::string, double>> ParseTenantWeights(
    const std::vector<std::string>& flags) {
  std::map<std::string, double> weights;
  for (const std::string& text : flags) {
    std::string name, value;
    double weight = 0;
    if (!SplitName(text, name, value) || !absl::SimpleAtod(value, &weight) ||
        !(weight >= 1e-3 && weight <= 1e3)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--tenant-weight is \"", text, "\"; write NAME=3, from 0.001 to 1000"));
    }
    RETURN_IF_ERROR(Insert("--tenant-weight", weights, name, weight));
  }
  return weights;
}

}  // namespace tarn::router
