#pragma once

// What each binary does first in main.

#include <string>

#include "absl/status/status.h"

namespace tarn {

// glog to stderr with its prefix (level, time, thread, file), a stack trace on fatal signals,
// SIGPIPE ignored. Call once, before other threads exist.
void InitProcess(const char* argv0);

// "info", "warning" or "error": what is below is not logged.
absl::Status SetLogLevel(const std::string& level);

}  // namespace tarn
