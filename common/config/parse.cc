#include "common/config/parse.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "common/base/status.h"

namespace tarn {
namespace {

struct Unit {
  const char* name;
  uint64_t bytes;
};

// Largest first, as FormatByteSize needs it.
constexpr Unit kBinary[] = {
    {"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}};
constexpr Unit kDecimal[] = {{"TB", 1000000000000}, {"GB", 1000000000}, {"MB", 1000000},
                             {"KB", 1000},          {"B", 1},           {"", 1}};

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

// 0 if there is no such unit.
uint64_t UnitBytes(const std::string& name) {
  const std::string wanted = Lower(name);
  for (const Unit& unit : kBinary) {
    if (Lower(unit.name) == wanted) return unit.bytes;
  }
  for (const Unit& unit : kDecimal) {
    if (Lower(unit.name) == wanted) return unit.bytes;
  }
  return 0;
}

absl::Status Bad(const std::string& text, const std::string& expected) {
  return absl::InvalidArgumentError("\"" + text + "\" is not " + expected);
}

absl::StatusOr<uint16_t> ParsePort(const std::string& text, const std::string& whole) {
  uint32_t port = 0;
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(),
                                                   [](unsigned char c) { return std::isdigit(c); });
  if (!digits || !absl::SimpleAtoi(text, &port) || port > 65535) {
    return Bad(whole, "host:port with a port from 0 to 65535");
  }
  return static_cast<uint16_t>(port);
}

}  // namespace

std::string HostPort::ToString() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return Bad(text, "host:port, such as 127.0.0.1:8000 or [::1]:8000");
  }
  HostPort result;
  result.host = text.substr(0, colon);
  const bool bracketed = result.host.front() == '[' && result.host.back() == ']';
  if (bracketed) result.host = result.host.substr(1, result.host.size() - 2);
  const bool colons_inside = result.host.find(':') != std::string::npos;
  const bool odd = result.host.find_first_of("[] \t\r\n/") != std::string::npos;
  if (result.host.empty() || odd || colons_inside != bracketed) {
    return Bad(text, "host:port, such as 127.0.0.1:8000 or [::1]:8000");
  }
  ASSIGN_OR_RETURN(result.port, ParsePort(text.substr(colon + 1), text));
  return result;
}

absl::StatusOr<uint64_t> ParseByteSize(const std::string& text) {
  const size_t unit_at = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, unit_at);
  std::string unit_name = unit_at == std::string::npos ? "" : text.substr(unit_at);
  if (!unit_name.empty() && unit_name.front() == ' ') unit_name.erase(0, 1);
  const uint64_t unit = UnitBytes(unit_name);
  const std::string expected = "a size in bytes, such as 4096, 64KiB, 1.5GiB or 10MB";
  if (number.empty() || unit == 0) return Bad(text, expected);
  uint64_t whole = 0;
  if (absl::SimpleAtoi(number, &whole)) {
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(whole, unit, &bytes)) return Bad(text, "a size below 16 EiB");
    return bytes;
  }
  double fraction = 0;
  if (number.find('.') == std::string::npos || !absl::SimpleAtod(number, &fraction)) {
    return Bad(text, expected);
  }
  const double bytes = fraction * static_cast<double>(unit);
  if (bytes >= 0x1p63) return Bad(text, "a size below 8 EiB");
  if (bytes != std::floor(bytes)) return Bad(text, "a whole number of bytes");
  return static_cast<uint64_t>(bytes);
}

std::string FormatByteSize(uint64_t bytes) {
  for (const Unit& unit : kBinary) {
    if (bytes >= unit.bytes && bytes % unit.bytes == 0) {
      return std::to_string(bytes / unit.bytes) + unit.name;
    }
  }
  return std::to_string(bytes) + "B";
}

absl::StatusOr<absl::Duration> ParseDuration(const std::string& text) {
  absl::Duration duration;
  // absl takes "0" without a unit, and numbers such as "5" are refused already.
  if (!absl::ParseDuration(text, &duration)) {
    return Bad(text, "a duration, such as 30s, 1m30s, 250ms or inf");
  }
  if (duration < absl::ZeroDuration()) return Bad(text, "a duration of 0 or more");
  return duration;
}

}  // namespace tarn
