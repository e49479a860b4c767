#pragma once

// JSON from strangers: a bound on depth, errors that say where, and typed fields. A field that is
// null counts as absent, as in OpenAI's API. Plain functions; thread-safe, nothing blocks.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tarn::router::openai {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;

// An object, else INVALID_ARGUMENT that says at which line and column: not JSON, nested deeper than
// kMaxJsonDepth, a string that is not UTF-8, a number that no double holds.
absl::StatusOr<Json> ParseObject(const std::string& text);

// On one line. What is not valid UTF-8 becomes U+FFFD.
std::string Dump(const OrderedJson& value);

// The field, or null if it is absent.
const Json* Find(const Json& object, const std::string& name);

// INVALID_ARGUMENT "`name`: must be `expected`, not `what it is`".
absl::Status WrongType(const std::string& name, const std::string& expected, const Json& value);

// Values of a field named `name` for errors; `low` and `high` are inclusive.
absl::StatusOr<bool> AsBool(const Json& value, const std::string& name);
absl::StatusOr<int64_t> AsInt(const Json& value, const std::string& name, int64_t low,
                              int64_t high);
absl::StatusOr<float> AsFloat(const Json& value, const std::string& name);
absl::StatusOr<std::string> AsString(const Json& value, const std::string& name);

}  // namespace tarn::router::openai
