// tarn-kvstore: a directory, and a store beside it.

#include <glog/logging.h>

#include <future>
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
#include "common/runtime/real/real_event_loop.h"
#include "kvstore/directory/service.h"
#include "kvstore/server/deferred_store.h"

namespace tarn::kvstore {
namespace {

struct Config {
  ServerFlags server;
  std::string node_id = "kvstore-0";
  std::string advertise_host;
  bool store = true;
  uint64_t dram_bytes = uint64_t{4} << 30;
  std::string ssd;
  uint64_t ssd_bytes = uint64_t{64} << 30;
  uint64_t index_bytes = uint64_t{1} << 30;
  HostPort store_listen{"127.0.0.1", 0};
  std::vector<std::string> directories;
  std::string transports;
  std::string rdma_devices = "auto";
  int data_port = 0;
};

void Bind(CommandLine& cli, Config& config) {
  AddServerFlags(cli, config.server);
  cli.Add("--node-id", config.node_id, "Name of this node, unique in the cluster");
  cli.Add("--advertise-host", config.advertise_host,
          "Host by which peers reach the store, where that is not the listen address");
  cli.Add("--store", config.store,
          "Keep blocks of other nodes in this process' DRAM; =false: directory only");
  cli.AddBytes("--dram", config.dram_bytes,
               "Memory for blocks, allocated when the first node joins and its model is known");
  cli.Add("--ssd", config.ssd,
          "Folder on a local disk, this node's own, for blocks that leave memory; they outlive the "
          "process. Empty: none");
  cli.AddBytes("--ssd-size", config.ssd_bytes, "Disk space of --ssd, taken at start");
  cli.AddBytes("--index", config.index_bytes,
               "Memory for the index of who holds which block, 32 to 44 bytes a block; what is "
               "beyond is not listed");
  cli.Add("--store-listen", config.store_listen, "Address of the store's handshake service");
  cli.Add("--directory", config.directories,
          "Other directories that the store announces its blocks to, host:port");
  cli.Add("--transports", config.transports,
          "How blocks move: \"tcp\", or UCX's list of transports; empty: the best of a pair");
  cli.Add("--data-port", config.data_port,
          "Port on the store's listen host for blocks over TCP; 0: a free one", {0, 65535});
  cli.Add("--rdma-devices", config.rdma_devices,
          "RDMA ports of the pool: auto, none, or names (mlx5_0:1,mlx5_1:1)");
}

// The directory, its server, and the store once there is a model to store blocks of.
class KvStoreProcess {
 public:
  explicit KvStoreProcess(const Config& config) : config_(config) {}
  absl::Status Start();
  ~KvStoreProcess();

 private:
  absl::Status ServeHttp();
  void AddMetrics();
  void UpdateMetrics();
  void AwaitModel();
  void RunOnLoop(const std::function<void()>& task);

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
  if (config_.store) AwaitModel();
  LOG(INFO) << "directory at " << rpc_->address() << ", http at " << http_->address();
  return WriteReadyFile(config_.server.ready_file,
                        {{"grpc", rpc_->address()}, {"http", http_->address()}});
}

absl::Status KvStoreProcess::ServeHttp() {
  AddStatusPages(router_, registry_, [] { return absl::OkStatus(); });
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
  RunOnLoop([this] { UpdateMetrics(); });
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

void KvStoreProcess::AwaitModel() {
  StoreOptions options;
  options.node_id = config_.node_id;
  options.dram_bytes = config_.dram_bytes;
  options.ssd_path = config_.ssd;
  options.ssd_bytes = config_.ssd.empty() ? 0 : config_.ssd_bytes;
  options.listen = config_.store_listen;
  options.advertise_host = config_.advertise_host;
  options.directories = {own_directory_};
  options.directories.insert(options.directories.end(), config_.directories.begin(),
                             config_.directories.end());
  options.transports = config_.transports;
  options.rdma_devices = config_.rdma_devices;
  options.data_port = config_.data_port;
  options.registry = &registry_;
  store_ = std::make_unique<DeferredStore>(std::move(options));
}

void KvStoreProcess::RunOnLoop(const std::function<void()>& task) {
  std::promise<void> ran;
  loop_.Post([&] {
    task();
    ran.set_value();
  });
  ran.get_future().get();
}

KvStoreProcess::~KvStoreProcess() {
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
  return 0;
}

}  // namespace
}  // namespace tarn::kvstore

int main(int argc, char** argv) { return tarn::kvstore::Main(argc, argv); }
