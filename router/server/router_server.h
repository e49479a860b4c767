#pragma once

// A router as one object: loop, directory, cluster, gRPC and HTTP servers. main() only parses flags
// and waits for the signal.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/config/server_flags.h"

namespace tarn::router {

struct RouterConfig {
  ServerFlags server{.listen = {"127.0.0.1", 9000}, .http_listen = {"127.0.0.1", 8080}};
  std::vector<std::string> directories;      // "host:port", best first
  std::string model_dir;                     // tokenizer and chat template
  std::string served_model_name;             // empty: as the nodes call it
  std::string router_id;                     // empty: drawn
  uint64_t index_bytes = uint64_t{1} << 30;  // of the index of who holds which block
  int max_in_flight = 10'000;
  int max_attempts = 3;
  int max_queue = 4096;             // requests that wait in the router
  int max_queue_per_tenant = 1024;  // of one tenant
  absl::Duration max_node_queue = absl::Milliseconds(500);
  std::vector<std::string> tenant_weights;   // NAME=WEIGHT
  std::vector<std::string> service_classes;  // NAME=TTFT,TPOT
  absl::Duration handover_timeout = absl::Seconds(30);
  // With the end of the servers below the 30 s that Kubernetes gives by default.
  absl::Duration drain_timeout = absl::Seconds(25);
};

class RouterServer {
 public:
  // Listens when it returns, though the cluster may not be there yet: the ready file is written
  // when there is a node of each role, and removed by Shutdown. UNAVAILABLE: an address cannot be
  // bound. INVALID_ARGUMENT names the flag.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(const RouterConfig& config);
  virtual ~RouterServer() = default;

  // Bound addresses.
  virtual std::string rpc_address() const = 0;
  virtual std::string http_address() const = 0;

  // Takes no new requests, waits until those under way have ended, `drain_timeout` at most, and
  // stops. Blocks; once.
  virtual void Shutdown() = 0;
};

}  // namespace tarn::router
