#pragma once

// Text of flags and config files to values, and back. Pure functions.
//
// Errors are INVALID_ARGUMENT, name the text and say what is understood; the caller adds the field.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tarn {

// Where to listen or connect. `host` without the brackets of an IPv6 address.
struct HostPort {
  std::string host;
  uint16_t port = 0;

  // "127.0.0.1:80", "[::1]:80".
  std::string ToString() const;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

// "host:port", "[v6]:port". Both parts are required; port 0 means a free one.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// Bytes: "4096", "64KiB", "4GiB", "1.5MiB", "10MB" (powers of 1000), "10B". Letter case is free.
absl::StatusOr<uint64_t> ParseByteSize(const std::string& text);

// The shortest exact form of ParseByteSize: "4GiB", "1000B".
std::string FormatByteSize(uint64_t bytes);

// "30s", "1m30s", "250ms", "inf". A unit is required; negative values are refused.
absl::StatusOr<absl::Duration> ParseDuration(const std::string& text);

}  // namespace tarn
