// tarn-router: what clients of a cluster talk to.

#include <glog/logging.h>

#include <iostream>

#include "common/base/status.h"
#include "common/config/command_line.h"
#include "common/config/process.h"
#include "common/config/server_flags.h"
#include "common/config/signals.h"
#include "router/server/router_server.h"

namespace tarn::router {
namespace {

void AddFlags(CommandLine& cli, RouterConfig& config) {
  AddServerFlags(cli, config.server);
  cli.Add("--directory", config.directories, "host:port of a directory, best first");
  cli.Require("--directory");
  cli.Add("--model", config.model_dir, "Hugging Face directory: tokenizer and chat template");
  cli.Require("--model");
  cli.Add("--served-model-name", config.served_model_name, "What clients call the model");
  cli.Add("--router-id", config.router_id, "Name of this router; drawn if empty");
  cli.AddBytes("--index", config.index_bytes,
               "Memory for the index of who holds which block, 32 to 44 bytes a block; twice that "
               "for a moment when another directory is followed");
  cli.Add("--max-in-flight", config.max_in_flight, "Requests at a time; one more is refused",
          {1, 1'000'000});
  cli.Add("--max-attempts", config.max_attempts, "Tries of a request when nodes are lost", {1, 50});
  cli.Add("--max-queue", config.max_queue,
          "Requests that wait in the router while all nodes are busy; one more is refused",
          {1, 1'000'000});
  cli.Add("--max-queue-per-tenant", config.max_queue_per_tenant, "Of one tenant", {1, 1'000'000});
  cli.Add("--max-node-queue", config.max_node_queue,
          "Work that a prefill node is given at most beyond what it computes; more waits in the "
          "router, where priorities and tenants' shares count");
  cli.Add("--tenant-weight", config.tenant_weights,
          "NAME=3: this tenant's share of busy nodes against 1 of any other; repeated");
  cli.Add("--service-class", config.service_classes,
          "NAME=500ms,50ms: requests of this service_tier are refused where more is predicted to "
          "the first token, or between tokens; \"default\" holds for those that name none; "
          "repeated");
  cli.Add("--handover-timeout", config.handover_timeout,
          "How long a prefill node keeps blocks for the decode node");
  cli.Add("--drain-timeout", config.drain_timeout, "How long SIGTERM waits for running requests");
}

int Run(int argc, char** argv) {
  InitProcess(argv[0]);
  RouterConfig config;
  CommandLine cli("tarn-router", "Routes requests to prefill and decode nodes.");
  AddFlags(cli, config);
  if (const auto exit_code = cli.Parse(argc, argv)) return *exit_code;
  if (const absl::Status level = SetLogLevel(config.server.log_level); !level.ok()) {
    std::cerr << "tarn-router: --log-level: " << Message(level) << "\n";
    return 2;
  }
  ShutdownSignal signal;
  auto server = RouterServer::Start(config);
  if (!server.ok()) {
    std::cerr << "tarn-router: " << Message(server.status()) << "\n";
    return 1;
  }
  LOG(INFO) << "gRPC at " << (*server)->rpc_address() << ", HTTP at " << (*server)->http_address();
  signal.Wait();
  LOG(INFO) << "shutting down";
  (*server)->Shutdown();
  return 0;
}

}  // namespace
}  // namespace tarn::router

int main(int argc, char** argv) { return tarn::router::Run(argc, argv); }
