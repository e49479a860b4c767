#pragma once

// What every process that holds blocks has, assembled: loop, transport, pool, peers, the directory
// streams, a gRPC server and the HTTP status pages. Prefill, decode and store add their own
// services.
//
//   ASSIGN_OR_RETURN(auto node, PoolNode::Create(options));     // pages are there
//   ... make the executor on node->pool()->arena(), and the services on node->loop() ...
//   RETURN_IF_ERROR(node->Start({&service}, load));             // serves, announces, is ready
//   ... wait for a signal ...
//   node->Drain();                                              // says so: nothing new comes
//   ... end the sessions, on the loop ...
//   node->Shutdown();                                           // leaves; ends calls, transfers
//
// Threads: main thread only, but for the accessors, which are constant after Create. The loop runs
// from Create until the destructor.

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config/server_flags.h"
#include "common/http/router.h"
#include "common/metrics/registry.h"
#include "common/runtime/event_loop.h"
#include "kvstore/client/node_pool.h"
#include "proto/common.pb.h"

namespace tarn::kvstore {

struct PoolNodeOptions {
  std::string node_id;
  v1::Role role = v1::ROLE_UNSPECIFIED;
  // What others are told to compare and to show; its layout is the pool's.
  v1::ModelDescriptor model;
  ServerFlags server;
  // What peers dial instead of the listen address' host, where that is not theirs ("0.0.0.0").
  std::string advertise_host;
  std::vector<std::string> directories;  // "host:port"
  int hbm_pages = 0;
  uint64_t dram_bytes = 0;  // rounded down to whole pages; 0: no DRAM tier
  std::string ssd_path;     // a folder of this node's own; empty: no SSD tier
  uint64_t ssd_bytes = 0;
  uint64_t ssd_bytes_a_second = 0;  // written at most; 0: as fast as it comes
  // Of each tier, by tenant: what nobody else can take from it, and the most that it may have.
  struct TenantShare {
    double guaranteed = 0;
    double limit = 1;
  };
  std::map<TenantId, TenantShare> tenant_shares;
  WritePolicy write_policy = WritePolicy::kThrough;
  Tier arena_tier = Tier::kHbm;  // stores: kDram
  // How blocks move. Empty: one-sided reads where a pair of nodes has them, else TCP. "tcp": TCP
  // only. Else UCX's list of transports for the one-sided reads, as in UcxOptions.
  std::string transports;
  int data_port = 0;         // where peers read over TCP, on the listen host; 0: a free one
  std::string rdma_devices;  // "auto" (or nothing), "none", or names with commas
  // Where a process serves its status pages itself: its registry (outlives the node), and no HTTP
  // here.
  metrics::Registry* registry = nullptr;
};

class PoolNode {
 public:
  using LoadSource = std::function<v1::NodeLoad()>;

  // INVALID_ARGUMENT names the option. RESOURCE_EXHAUSTED: the slabs do not fit.
  static absl::StatusOr<std::unique_ptr<PoolNode>> Create(PoolNodeOptions options);
  virtual ~PoolNode() = default;

  virtual EventLoop* loop() = 0;
  virtual NodePool* pool() = 0;  // loop-only, as it says
  virtual metrics::Registry& registry() = 0;
  // Pages beside /health, /ready and /metrics, to be added before Start.
  virtual HttpRouter& http() = 0;
  // The addresses are known after Start.
  virtual const v1::NodeInfo& info() const = 0;

  // Serves `services` (borrowed until Shutdown) beside Pool, health and reflection; pulls a probe
  // block through the transport; then joins the directories and writes the ready file. `load` fills
  // in what the role knows; the pool's own figures are put in afterwards. It runs on the loop.
  virtual absl::Status Start(std::vector<grpc::Service*> services, LoadSource load) = 0;

  // Whether /ready says so. OK after Start, UNAVAILABLE while draining. Thread-safe.
  virtual absl::Status Ready() const = 0;

  // Tells the directories that this node is draining, so that routers send it nothing new, and
  // turns /ready off. It stays listed, and its blocks stay there for others to pull. Does not wait.
  virtual void Drain() = 0;
  // Drain, if that was not done; then says goodbye to the directories, ends the RPC server (running
  // calls get `grace`), waits until no transfer is under way, stops HTTP, removes the ready file.
  // Blocks, bounded: `grace` and some six seconds. The role's sessions, with their PageRefs, must
  // be destroyed on the loop afterwards or before, then this object.
  virtual void Shutdown(absl::Duration grace) = 0;

  // Runs `task` on the loop and waits for it. Not on the loop.
  void RunOnLoop(const std::function<void()>& task);
};

}  // namespace tarn::kvstore
