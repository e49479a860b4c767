#include "common/config/server_flags.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace tarn {

void AddServerFlags(CommandLine& command_line, ServerFlags& flags) {
  command_line.Add("--listen", flags.listen, "Where gRPC listens; port 0 takes a free one");
  command_line.Add("--http-listen", flags.http_listen, "Where HTTP listens");
  command_line.AddChoice("--log-level", flags.log_level, "What is logged, and all above it",
                         {"info", "warning", "error"});
  command_line.Add("--ready-file", flags.ready_file,
                   "Write the bound addresses there, as JSON, when the server is ready");
}

absl::Status WriteReadyFile(const std::string& path,
                            const std::map<std::string, std::string>& addresses) {
  if (path.empty()) return absl::OkStatus();
  nlohmann::json json(addresses);
  json["pid"] = getpid();
  const std::string temporary = path + "." + std::to_string(getpid()) + ".tmp";
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << json.dump() << "\n" << std::flush;
    if (!file.good()) {
      return absl::UnavailableError("--ready-file: cannot write " + temporary + ": " +
                                    std::strerror(errno));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const int reason = errno;
  std::remove(temporary.c_str());
  return absl::UnavailableError("--ready-file: cannot create " + path + ": " +
                                std::strerror(reason));
}

void RemoveReadyFile(const std::string& path) {
  if (!path.empty()) std::remove(path.c_str());
}

}  // namespace tarn
