// tarn-kvstore: a directory, and a store beside it.

#include <glog/logging.h>

#include <atomic>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/config/command_line.h"
#include "common/config/process.h"
#include "common/config/server_flags.h"
#include "common/config/signals.h"
#include "common/http/status_pages.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"
#include "kvstore/client/pool_flags.h"
#include "kvstore/directory/service.h"
#include "kvstore/server/deferred_store.h"

namespace tarn::kvstore {
namespace {

struct Config {
  ServerFlags server;
  PoolFlags pool{.node_id = "kvstore-0", .dram = uint64_t{4} << 30};
  bool store = true;
  uint64_t index_bytes = uint64_t{1} << 30;
  HostPort store_listen{"127.0.0.1", 0};
  // Less than the 30 s that Kubernetes gives.
  absl::Duration drain_timeout = absl::Seconds(20);
};

void Bind(CommandLine& cli, Config& config) {
  AddServerFlags(cli, config.server);
  AddPoolFlags(cli, config.pool);
  cli.Add("--transports", config.pool.transports, "The same as --transport");
  cli.Add("--store", config.store,
          "Keep blocks of other nodes in this process' DRAM, which is taken when the first node "
          "joins and its model is known; =false: directory only");
  cli.AddBytes("--index", config.index_bytes,
               "Memory for the index of who holds which block, 32 to 44 bytes a block; what is "
               "beyond is not listed");
  cli.Add("--store-listen", config.store_listen, "Address of the store's handshake service");
  cli.Add("--drain-timeout", config.drain_timeout,
          "How long it stays at most, when it is told to end, until other stores have taken over "
          "what only it has; a second signal ends it at once");
}

// The directory, its server, and the store once there is a model to store blocks of.
class KvStoreProcess {
 public:
  explicit KvStoreProcess(const Config& config) : config_(config) {}
  absl::Status Start();
  // Hands over what the store has; the directory goes on meanwhile. Blocks.
  void Drain();
  ~KvStoreProcess();

 private:
  absl::Status ServeHttp();
  void AddMetrics();
  void UpdateMetrics();
  absl::Status AwaitModel();

  const Config config_;
  metrics::Registry registry_;
  metrics::Gauge* nodes_ = nullptr;
  metrics::Gauge* subscribers_ = nullptr;
  metrics::Gauge* blocks_ = nullptr;
  metrics::Gauge* places_ = nullptr;
  metrics::Gauge* index_bytes_ = nullptr;
  metrics::Gauge* index_limit_ = nullptr;
  metrics::Counter* refused_ = nullptr;
  metrics::Counter* updates_ = nullptr;
  metrics::Counter* gaps_ = nullptr;
  HttpRouter router_;
  std::atomic<bool> draining_ = false;
  RealEventLoop loop_{"directory"};
  std::unique_ptr<DirectoryService> service_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<HttpServer> http_;
  std::string own_directory_;
  std::unique_ptr<DeferredStore> store_;
};

absl::Status KvStoreProcess::Start() {
  DirectoryOptions directory;
  directory.index.max_bytes = config_.index_bytes;
  service_ = std::make_unique<DirectoryService>(&loop_, directory);
  RpcServerOptions options;
  options.listen = config_.server.listen.ToString();
  ASSIGN_OR_RETURN(rpc_, RpcServer::Start(options, {service_.get()}));
  AddMetrics();
  RETURN_IF_ERROR(ServeHttp());
  rpc_->SetServing(true);
  HostPort own = config_.server.listen;
  if (own.host == "0.0.0.0") own.host = "127.0.0.1";
  if (own.host == "::") own.host = "::1";
  own.port = static_cast<uint16_t>(rpc_->port());
  own_directory_ = own.ToString();
  if (config_.store) RETURN_IF_ERROR(AwaitModel());
  LOG(INFO) << "directory at " << rpc_->address() << ", http at " << http_->address();
  return WriteReadyFile(config_.server.ready_file,
                        {{"grpc", rpc_->address()}, {"http", http_->address()}});
}

absl::Status KvStoreProcess::ServeHttp() {
  AddStatusPages(router_, registry_, [this] {
    return draining_ ? absl::UnavailableError("draining") : absl::OkStatus();
  });
  HttpServerOptions options;
  options.listen = config_.server.http_listen.ToString();
  ASSIGN_OR_RETURN(http_, HttpServer::Start(options, [this](HttpRequest request, auto responder) {
                     router_.Route(std::move(request), std::move(responder));
                   }));
  return absl::OkStatus();
}

void KvStoreProcess::AddMetrics() {
  nodes_ = &registry_.AddGauge("tarn_directory_nodes", "Nodes that publish here.");
  subscribers_ = &registry_.AddGauge("tarn_directory_subscribers", "Streams of updates.");
  blocks_ = &registry_.AddGauge("tarn_directory_blocks", "Distinct blocks that are known.");
  places_ = &registry_.AddGauge("tarn_directory_places",
                                "Places of blocks: one in two tiers or nodes counts twice.");
  index_bytes_ = &registry_.AddGauge("tarn_directory_index_bytes", "Memory of the index.");
  index_limit_ = &registry_.AddGauge("tarn_directory_index_limit_bytes", "Its limit: --index.");
  refused_ = &registry_.AddCounter("tarn_directory_refused_places_total",
                                   "Places that the index had no room for: not listed.");
  updates_ = &registry_.AddCounter("tarn_directory_updates_total", "Messages with blocks.");
  gaps_ = &registry_.AddCounter("tarn_directory_gaps_total",
                                "Missing messages, each answered by a request for a snapshot.");
  RunOnLoop(loop_, [this] { UpdateMetrics(); });
}

void KvStoreProcess::UpdateMetrics() {
  DirectoryStats stats = service_->Stats();
  nodes_->Set(static_cast<double>(stats.nodes));
  subscribers_->Set(static_cast<double>(stats.subscribers));
  blocks_->Set(static_cast<double>(stats.index.blocks));
  places_->Set(static_cast<double>(stats.index.places));
  index_bytes_->Set(static_cast<double>(stats.index.bytes));
  index_limit_->Set(static_cast<double>(stats.index.max_bytes));
  refused_->Add(stats.index.refused - refused_->Value());
  updates_->Add(stats.updates - updates_->Value());
  gaps_->Add(stats.snapshots_requested - gaps_->Value());
  loop_.PostAfter(absl::Milliseconds(200), [this] { UpdateMetrics(); });
}

absl::Status KvStoreProcess::AwaitModel() {
  ServerFlags server;
  server.listen = config_.store_listen;
  ASSIGN_OR_RETURN(PoolNodeOptions options, PoolOptionsFrom(config_.pool, server));
  options.directories.insert(options.directories.begin(), own_directory_);
  options.registry = &registry_;
  store_ = std::make_unique<DeferredStore>(std::move(options));
  return absl::OkStatus();
}

void KvStoreProcess::Drain() {
  draining_ = true;
  if (store_ != nullptr) store_->Drain(config_.drain_timeout);
}

KvStoreProcess::~KvStoreProcess() {
  draining_ = true;
  if (rpc_ != nullptr) rpc_->SetServing(false);
  store_.reset();
  if (rpc_ != nullptr) rpc_->Shutdown(absl::ZeroDuration());
  if (http_ != nullptr) http_->Stop(absl::Milliseconds(200));
  loop_.Stop();
  RemoveReadyFile(config_.server.ready_file);
}

int Main(int argc, char** argv) {
  Config config;
  CommandLine cli("tarn-kvstore",
                  "A directory of who holds which KV block, and a store that keeps copies in DRAM. "
                  "Several may run side by side; any may be lost.");
  Bind(cli, config);
  if (std::optional<int> exit_code = cli.Parse(argc, argv)) return *exit_code;
  ShutdownSignal signal;
  InitProcess(argv[0]);
  absl::Status status = SetLogLevel(config.server.log_level);
  std::unique_ptr<KvStoreProcess> process;
  if (status.ok()) {
    process = std::make_unique<KvStoreProcess>(config);
    status = process->Start();
  }
  if (!status.ok()) {
    LOG(ERROR) << "tarn-kvstore: " << status;
    return 1;
  }
  signal.Wait();
  LOG(INFO) << "shutting down";
  process->Drain();
  return 0;
}

}  // namespace
}  // namespace tarn::kvstore

int main(int argc, char** argv) { return tarn::kvstore::Main(argc, argv); }
