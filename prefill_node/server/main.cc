// tarn-prefill: see README.md of //prefill_node.

#include <glog/logging.h>

#include <cstdlib>
#include <optional>

#include "common/base/status.h"
#include "common/config/command_line.h"
#include "common/config/process.h"
#include "common/config/signals.h"
#include "prefill_node/server/prefill_config.h"
#include "prefill_node/server/prefill_server.h"

int main(int argc, char** argv) {
  tarn::InitProcess(argv[0]);
  tarn::prefill::PrefillConfig config;
  tarn::CommandLine command_line("tarn-prefill",
                                 "Reads prompts: computes their KV and the first token.");
  AddFlags(command_line, config);
  if (const std::optional<int> exit_code = command_line.Parse(argc, argv)) return *exit_code;
  const absl::Status level = tarn::SetLogLevel(config.server.log_level);
  if (!level.ok()) LOG(ERROR) << level;

  tarn::ShutdownSignal signal;
  const auto server = tarn::prefill::PrefillServer::Start(config);
  if (!server.ok()) {
    LOG(ERROR) << "tarn-prefill cannot start: " << server.status();
    return EXIT_FAILURE;
  }
  LOG(INFO) << config.pool.node_id << " is ready: gRPC on " << (*server)->info().rpc_address()
            << ", HTTP on " << (*server)->info().http_address();
  LOG(INFO) << "Signal " << signal.Wait() << ": stopping";
  (*server)->Stop();
  return EXIT_SUCCESS;
}
