#include "common/config/process.h"

#include <glog/logging.h>

#include <csignal>

namespace tarn {

void InitProcess(const char* argv0) {
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv0);
  google::InstallFailureSignalHandler();
  // glog takes it for a failure; it is how one ends a process.
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
}

absl::Status SetLogLevel(const std::string& level) {
  if (level == "info") {
    FLAGS_minloglevel = google::GLOG_INFO;
  } else if (level == "warning") {
    FLAGS_minloglevel = google::GLOG_WARNING;
  } else if (level == "error") {
    FLAGS_minloglevel = google::GLOG_ERROR;
  } else {
    return absl::InvalidArgumentError("log level \"" + level +
                                      "\" is none of info, warning, error");
  }
  return absl::OkStatus();
}

}  // namespace tarn
