#include "router/frontend/openai/json.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::router::openai {
namespace {

constexpr size_t kMaxDetailBytes = 300;

// nlohmann parses without recursion, but copies and prints with it. This counts brackets as far as
// the text is JSON; where it is not, the parser stops.
absl::Status CheckDepth(const std::string& text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == ']' || c == '}') --depth;
    if ((c == '[' || c == '{') && ++depth > kMaxJsonDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat("the body is nested deeper than ", kMaxJsonDepth, " levels, at byte ", i));
    }
  }
  return absl::OkStatus();
}

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without its bracket. The
// last token read may be megabytes long.
std::string Detail(const Json::exception& error) {
  std::string text = error.what();
  const size_t end = text.find("] ");
  if (end != std::string::npos) text.erase(0, end + 2);
  if (text.size() > kMaxDetailBytes) text = text.substr(0, kMaxDetailBytes) + "...";
  return text;
}

}  // namespace

absl::StatusOr<Json> ParseObject(const std::string& text) {
  RETURN_IF_ERROR(CheckDepth(text));
  Json value;
  try {
    value = Json::parse(text);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the body is not valid JSON: ", Detail(error)));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body must be a JSON object, not ", value.type_name()));
  }
  return value;
}

std::string Dump(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

const Json* Find(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status WrongType(const std::string& name, const std::string& expected, const Json& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": must be ", expected, ", not ", value.type_name()));
}

absl::StatusOr<bool> AsBool(const Json& value, const std::string& name) {
  if (!value.is_boolean()) return WrongType(name, "true or false", value);
  return value.get<bool>();
}

absl::StatusOr<int64_t> AsInt(const Json& value, const std::string& name, int64_t low,
                              int64_t high) {
  if (!value.is_number()) return WrongType(name, "an integer", value);
  const double approximate = value.get<double>();
  if (approximate != std::floor(approximate)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": must be an integer, not ", value.dump()));
  }
  // Beyond these a conversion is not defined; inside, only integers of JSON are exact.
  const bool fits = approximate >= -0x1p63 && approximate < 0x1p63;
  const int64_t integer =
      !fits ? 0 : (value.is_number_integer() ? value.get<int64_t>() : std::llround(approximate));
  if (!fits || integer < low || integer > high) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": is ", value.dump(), "; ", low, " to ", high));
  }
  return integer;
}

absl::StatusOr<float> AsFloat(const Json& value, const std::string& name) {
  if (!value.is_number()) return WrongType(name, "a number", value);
  return static_cast<float>(value.get<double>());
}

absl::StatusOr<std::string> AsString(const Json& value, const std::string& name) {
  if (!value.is_string()) return WrongType(name, "a string", value);
  return value.get<std::string>();
}

}  // namespace tarn::router::openai
