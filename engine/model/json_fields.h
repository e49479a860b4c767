#pragma once

// Typed, range-checked access to the fields of a JSON object, with errors that name file and field.
// Borrows the object. Thread-compatible.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tarn::engine {

// Parses `text`, whose root must be an object. INVALID_ARGUMENT with the position of the error.
absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text, const std::string& file);

class JsonFields {
 public:
  // `prefix`: how errors call the object, e.g. "rope_scaling."; empty for the root.
  JsonFields(const nlohmann::json& object, std::string file, std::string prefix = "")
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  // Present and not null.
  bool Has(const std::string& field) const;
  const nlohmann::json& operator[](const std::string& field) const { return object_.at(field); }

  // The Require forms refuse a missing field; the Get forms keep the default in *value.
  absl::Status RequireInt(const std::string& field, int64_t low, int64_t high, int* value) const;
  absl::Status GetInt(const std::string& field, int64_t low, int64_t high, int* value) const;
  absl::Status RequireNumber(const std::string& field, double low, double high,
                             double* value) const;
  absl::Status GetNumber(const std::string& field, double low, double high, double* value) const;
  absl::Status GetBool(const std::string& field, bool* value) const;
  absl::Status GetString(const std::string& field, std::string* value) const;

  // "FILE: PREFIXfield: what".
  absl::Status Error(const std::string& field, const std::string& what) const;

 private:
  const nlohmann::json& object_;
  std::string file_;
  std::string prefix_;
};

}  // namespace tarn::engine
