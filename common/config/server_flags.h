#pragma once

// The flags that every server has, and the file by which others learn where it listens.

#include <map>
#include <string>

#include "absl/status/status.h"
#include "common/config/command_line.h"

namespace tarn {

struct ServerFlags {
  HostPort listen{"127.0.0.1", 0};       // --listen: gRPC
  HostPort http_listen{"127.0.0.1", 0};  // --http-listen: health, metrics, and OpenAI at a router
  std::string log_level = "info";        // --log-level: info, warning, error
  std::string ready_file;                // --ready-file
};

void AddServerFlags(CommandLine& command_line, ServerFlags& flags);

// Says that the server is ready, and where: {"pid": 1, "grpc": "127.0.0.1:4711", ...}, one member
// per entry of `addresses`. The file appears whole or not at all (written beside, then renamed).
// An empty path writes nothing.
absl::Status WriteReadyFile(const std::string& path,
                            const std::map<std::string, std::string>& addresses);

// Removes it again when the server shuts down. A file that is gone already is fine.
void RemoveReadyFile(const std::string& path);

}  // namespace tarn
