#include "engine/model/json_fields.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::engine {

absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text, const std::string& file) {
  try {
    nlohmann::json root = nlohmann::json::parse(text);
    if (root.is_object()) return root;
    return absl::InvalidArgumentError(absl::StrCat(file, ": expected a JSON object"));
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": not valid JSON: ", e.what()));
  }
}

bool JsonFields::Has(const std::string& field) const {
  const auto it = object_.find(field);
  return it != object_.end() && !it->is_null();
}

absl::Status JsonFields::Error(const std::string& field, const std::string& what) const {
  return absl::InvalidArgumentError(absl::StrCat(file_, ": ", prefix_, field, ": ", what));
}

absl::Status JsonFields::RequireInt(const std::string& field, int64_t low, int64_t high,
                                    int* value) const {
  if (!Has(field)) {
    return Error(field, absl::StrCat("missing, expected an integer from ", low, " to ", high));
  }
  return GetInt(field, low, high, value);
}

absl::Status JsonFields::GetInt(const std::string& field, int64_t low, int64_t high,
                                int* value) const {
  if (!Has(field)) return absl::OkStatus();
  const nlohmann::json& json = object_.at(field);
  const bool fits = json.is_number_integer() &&
                    !(json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) &&
                    json.get<int64_t>() >= low && json.get<int64_t>() <= high;
  if (!fits) {
    return Error(field, absl::StrCat("is ", json.dump(-1, ' ', true), ", expected an integer from ",
                                     low, " to ", high));
  }
  *value = static_cast<int>(json.get<int64_t>());
  return absl::OkStatus();
}

absl::Status JsonFields::RequireNumber(const std::string& field, double low, double high,
                                       double* value) const {
  if (!Has(field)) {
    return Error(field, absl::StrCat("missing, expected a number from ", low, " to ", high));
  }
  return GetNumber(field, low, high, value);
}

absl::Status JsonFields::GetNumber(const std::string& field, double low, double high,
                                   double* value) const {
  if (!Has(field)) return absl::OkStatus();
  const nlohmann::json& json = object_.at(field);
  const bool fits = json.is_number() && std::isfinite(json.get<double>()) &&
                    json.get<double>() >= low && json.get<double>() <= high;
  if (!fits) {
    return Error(field, absl::StrCat("is ", json.dump(-1, ' ', true), ", expected a number from ",
                                     low, " to ", high));
  }
  *value = json.get<double>();
  return absl::OkStatus();
}

absl::Status JsonFields::GetBool(const std::string& field, bool* value) const {
  if (!Has(field)) return absl::OkStatus();
  const nlohmann::json& json = object_.at(field);
  if (!json.is_boolean()) {
    return Error(field, absl::StrCat("is ", json.dump(-1, ' ', true), ", expected true or false"));
  }
  *value = json.get<bool>();
  return absl::OkStatus();
}

absl::Status JsonFields::GetString(const std::string& field, std::string* value) const {
  if (!Has(field)) return absl::OkStatus();
  const nlohmann::json& json = object_.at(field);
  if (!json.is_string()) {
    return Error(field, absl::StrCat("is ", json.dump(-1, ' ', true), ", expected a string"));
  }
  *value = json.get<std::string>();
  return absl::OkStatus();
}

}  // namespace tarn::engine
