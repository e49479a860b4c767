#include "kvstore/client/pool_node.h"

#include <glog/logging.h>

#include <array>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/http/status_pages.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/node/node_transport.h"
#include "kvstore/client/peers.h"
#include "kvstore/client/pool_metrics.h"
#include "kvstore/client/pool_service.h"
#include "kvstore/client/probe.h"
#include "kvstore/client/rdma_ports.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/tenant_fair.h"
#include "kvstore/directory/publisher.h"
#include "kvstore/tier/ssd/ssd_store.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kProbeTimeout = absl::Seconds(15);
constexpr absl::Duration kLeaveGrace = absl::Seconds(1);
constexpr absl::Duration kTransferGrace = absl::Seconds(5);
constexpr absl::Duration kMetricsInterval = absl::Milliseconds(100);
constexpr int kMinPages = 2;  // the probe's

absl::Status CheckOptions(const PoolNodeOptions& options) {
  if (options.node_id.empty()) return absl::InvalidArgumentError("node_id is empty");
  if (options.hbm_pages < kMinPages) {
    return absl::InvalidArgumentError(
        absl::StrCat("hbm_pages is ", options.hbm_pages, ", at least ", kMinPages, " are needed"));
  }
  const std::string& host = options.server.listen.host;
  if ((host == "0.0.0.0" || host == "::") && options.advertise_host.empty()) {
    return absl::InvalidArgumentError("listening on " + host +
                                      " needs advertise_host, which peers can dial");
  }
  return absl::OkStatus();
}

NodeTransportOptions TransportOptions(const PoolNodeOptions& options, const UcxOptions& ucx) {
  NodeTransportOptions transport;
  transport.one_sided = options.transports != "tcp";
  transport.ucx = ucx;
  transport.tcp.listen_host = options.server.listen.host;
  transport.tcp.listen_port = static_cast<uint16_t>(options.data_port);
  transport.tcp.advertise_host = options.advertise_host;
  return transport;
}

// Reuse is learned for each tenant by itself, and tenants share a tier by what they are guaranteed.
std::unique_ptr<EvictionPolicy> MakeEviction(const PoolNodeOptions& options, int pages) {
  TenantFairPolicy::Options shares;
  for (const auto& [tenant, share] : options.tenant_shares) {
    TenantShare& in_pages = shares.shares[tenant];
    in_pages.guaranteed = static_cast<int>(share.guaranteed * pages);
    if (share.limit < 1) in_pages.limit = static_cast<int>(share.limit * pages);
  }
  return std::make_unique<TenantFairPolicy>(
      std::move(shares), [pages] { return std::make_unique<LearnedPolicy>(pages); });
}

class PoolNodeImpl : public PoolNode {
 public:
  static absl::StatusOr<std::unique_ptr<PoolNode>> Create(PoolNodeOptions options) {
    RETURN_IF_ERROR(CheckOptions(options));
    std::unique_ptr<PoolNodeImpl> node(new PoolNodeImpl(std::move(options)));
    RETURN_IF_ERROR(node->Build());
    return node;
  }
  ~PoolNodeImpl() override;

  EventLoop* loop() override { return &loop_; }
  NodePool* pool() override { return pool_.get(); }
  metrics::Registry& registry() override { return *registry_; }
  HttpRouter& http() override { return router_; }
  const v1::NodeInfo& info() const override { return info_; }

  absl::Status Start(std::vector<grpc::Service*> services, LoadSource load) override;
  absl::Status Ready() const override;
  void Drain() override;
  void Shutdown(absl::Duration grace) override;

 private:
  explicit PoolNodeImpl(PoolNodeOptions options);
  absl::Status Build();
  absl::StatusOr<std::unique_ptr<PersistentBlockStore>> OpenSsd(const BlockLayout& layout);
  absl::Status Serve(std::vector<grpc::Service*> services);
  absl::Status ServeHttp();
  absl::Status Probe();
  void Announce(LoadSource load);
  v1::NodeLoad WithPoolFigures(v1::NodeLoad load) const;
  void UpdateMetrics();
  // Says goodbye to the directories.
  void Leave();
  void WaitForTransfers();
  void SetReady(absl::Status status);

  const PoolNodeOptions options_;
  std::unique_ptr<metrics::Registry> own_registry_;
  metrics::Registry* const registry_;
  HttpRouter router_;
  v1::NodeInfo info_;
  mutable Mutex mutex_;
  absl::Status ready_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("starting");

  RealEventLoop loop_{"tarn-node"};
  // Their number is how many peers that do not answer delay nobody else.
  std::array<std::unique_ptr<RealEventLoop>, 4> connect_loops_;
  std::unique_ptr<RdmaPorts> rdma_;
  std::unique_ptr<NodeTransport> transport_;
  // Loop only.
  std::unique_ptr<Peers> peers_;
  std::unique_ptr<PoolMetrics> metrics_;
  std::unique_ptr<NodePool> pool_;
  std::unique_ptr<InventoryPublisher> publisher_;
  metrics::Gauge* synced_ = nullptr;
  TimerId metrics_timer_ = 0;
  bool draining_ = false;
  // Main thread only.
  std::unique_ptr<PoolService> pool_service_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<HttpServer> http_;
  bool drained_ = false;
  bool shut_down_ = false;
};

PoolNodeImpl::PoolNodeImpl(PoolNodeOptions options)
    : options_(std::move(options)),
      own_registry_(options_.registry == nullptr ? std::make_unique<metrics::Registry>() : nullptr),
      registry_(options_.registry == nullptr ? own_registry_.get() : options_.registry) {
  info_.set_node_id(options_.node_id);
  info_.set_incarnation(Random::FromEntropy().Next());
  info_.set_role(options_.role);
  *info_.mutable_model() = options_.model;
}

absl::Status PoolNodeImpl::Build() {
  absl::StatusOr<BlockLayout> layout = FromProto(options_.model.layout());
  if (!layout.ok()) return Annotate(layout.status(), "model.layout");
  ASSIGN_OR_RETURN(
      rdma_, RdmaPorts::Open({.devices = options_.rdma_devices, .transports = options_.transports},
                             registry_));
  for (const std::string& port : rdma_->descriptions()) info_.add_rdma_ports(port);
  ASSIGN_OR_RETURN(transport_,
                   NodeTransport::Create(TransportOptions(options_, rdma_->ucx()), loop_));
  std::vector<EventLoop*> connect_loops;
  for (auto& loop : connect_loops_) {
    loop = std::make_unique<RealEventLoop>("tarn-connect");
    connect_loops.push_back(loop.get());
  }
  peers_ = std::make_unique<Peers>(&loop_, connect_loops, transport_.get());
  metrics_ = std::make_unique<PoolMetrics>(
      registry_, PoolMetricsOptions{.arena_tier = options_.arena_tier,
                                    .model = options_.model.name(),
                                    .block_bytes = layout->payload_bytes()});
  NodePoolOptions pool;
  pool.observer = metrics_.get();
  pool.eviction = [this](Tier, int pages) { return MakeEviction(options_, pages); };
  if (options_.ssd_bytes_a_second > 0) {
    pool.ssd_writes.bytes_a_second = static_cast<int64_t>(options_.ssd_bytes_a_second);
  }
  pool.layout = *layout;
  pool.hbm_pages = options_.hbm_pages;
  pool.dram_pages = static_cast<int>(options_.dram_bytes / layout->page_bytes());
  pool.arena_tier = options_.arena_tier;
  pool.write_policy = options_.write_policy;
  ASSIGN_OR_RETURN(std::unique_ptr<PersistentBlockStore> ssd, OpenSsd(*layout));
  ASSIGN_OR_RETURN(pool_,
                   NodePool::Create(pool, &loop_, transport_.get(), peers_.get(), std::move(ssd)));
  pool_service_ = std::make_unique<PoolService>(
      &loop_,
      [pool = pool_.get()](const BlockKey& key, absl::Time deadline, NodePool::StageDone done) {
        pool->Stage(key, deadline, std::move(done));
      },
      PeerAddress{transport_->Address(), pool_->RegionDescriptors()});
  synced_ = &registry_->AddGauge("tarn_kv_directories_synced",
                                 "Directories that have this node's whole inventory.");
  LOG(INFO) << options_.node_id << ": " << pool.hbm_pages << " pages and " << pool.dram_pages
            << " in DRAM, of " << layout->ToString();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PersistentBlockStore>> PoolNodeImpl::OpenSsd(
    const BlockLayout& layout) {
  if (options_.ssd_path.empty()) return nullptr;
  SsdStoreOptions options;
  options.directory = options_.ssd_path;
  options.capacity_bytes = options_.ssd_bytes;
  options.layout = layout;
  options.model_fingerprint = options_.model.fingerprint();
  absl::StatusOr<std::unique_ptr<SsdStore>> store = SsdStore::Open(options, &loop_);
  if (!store.ok()) return Annotate(store.status(), "--ssd " + options_.ssd_path);
  LOG(INFO) << options_.node_id << ": " << (*store)->slots() << " blocks on SSD in "
            << options_.ssd_path << ", " << (*store)->io_name();
  return std::move(*store);
}

absl::Status PoolNodeImpl::Start(std::vector<grpc::Service*> services, LoadSource load) {
  RETURN_IF_ERROR(Serve(std::move(services)));
  if (options_.registry == nullptr) RETURN_IF_ERROR(ServeHttp());
  RunOnLoop([this] {
    peers_->SetSelf(info_);
    pool_service_->SetSelf(info_);
    UpdateMetrics();
  });
  RETURN_IF_ERROR(Probe());
  Announce(std::move(load));
  rpc_->SetServing(true);
  SetReady(absl::OkStatus());
  std::map<std::string, std::string> addresses{{"grpc", info_.rpc_address()}};
  if (http_ != nullptr) addresses["http"] = info_.http_address();
  return WriteReadyFile(options_.server.ready_file, addresses);
}

absl::Status PoolNodeImpl::Serve(std::vector<grpc::Service*> services) {
  services.push_back(pool_service_.get());
  RpcServerOptions options;
  options.listen = options_.server.listen.ToString();
  ASSIGN_OR_RETURN(rpc_, RpcServer::Start(options, services));
  HostPort address = options_.server.listen;
  if (!options_.advertise_host.empty()) address.host = options_.advertise_host;
  address.port = static_cast<uint16_t>(rpc_->port());
  info_.set_rpc_address(address.ToString());
  return absl::OkStatus();
}

absl::Status PoolNodeImpl::ServeHttp() {
  AddStatusPages(router_, *registry_, [this] { return Ready(); });
  HttpServerOptions options;
  options.listen = options_.server.http_listen.ToString();
  ASSIGN_OR_RETURN(http_, HttpServer::Start(options, [this](HttpRequest request, auto responder) {
                     router_.Route(std::move(request), std::move(responder));
                   }));
  HostPort address = options_.server.http_listen;
  if (!options_.advertise_host.empty()) address.host = options_.advertise_host;
  address.port = static_cast<uint16_t>(http_->port());
  info_.set_http_address(address.ToString());
  return absl::OkStatus();
}

absl::Status PoolNodeImpl::Probe() {
  std::promise<absl::Status> result;
  loop_.Post([&] {
    ProbePool({pool_.get(), peers_.get(), transport_.get()}, info_, loop_.Now() + kProbeTimeout,
              [&](absl::Status status) { result.set_value(std::move(status)); });
  });
  return result.get_future().get();
}

void PoolNodeImpl::Announce(LoadSource load) {
  RunOnLoop([&] {
    InventoryPublisherOptions options;
    options.directories = options_.directories;
    options.info = info_;
    publisher_ = InventoryPublisher::Start(
        std::move(options), &loop_,
        {.listen =
             [pool = pool_.get()](InventoryPublisher::Listener listener) {
               pool->ListenToInventory(std::move(listener));
             },
         .read =
             [pool = pool_.get()](uint64_t cursor, int max, std::vector<InventoryChange>* blocks) {
               return pool->ReadInventory(cursor, max, blocks);
             }},
        [this, load = std::move(load)] { return WithPoolFigures(load ? load() : v1::NodeLoad()); });
  });
}

v1::NodeLoad PoolNodeImpl::WithPoolFigures(v1::NodeLoad load) const {
  NodePoolStats stats = pool_->Stats();
  bool has_hbm = options_.arena_tier == Tier::kHbm;
  if (has_hbm) {
    load.set_hbm_pages(stats.hbm_pages);
    load.set_hbm_pages_free(stats.hbm_free);
    load.set_hbm_pages_reserved(stats.hbm_reserved + stats.hbm_held);
  }
  load.set_dram_pages(has_hbm ? stats.dram_pages : stats.hbm_pages);
  load.set_dram_pages_free(has_hbm ? stats.dram_free : stats.hbm_free);
  load.set_ssd_pages(stats.ssd_pages);
  load.set_ssd_pages_free(stats.ssd_free);
  load.set_ssd_read_bytes_per_us(stats.ssd_read_bytes_per_us);
  load.set_pull_bytes_per_us(stats.pull_bytes_per_us);
  load.set_leaked_pages(stats.leaked);
  load.set_draining(load.draining() || draining_);
  for (std::string& problem : rdma_->Problems()) load.add_rdma_problems(std::move(problem));
  return load;
}

void PoolNodeImpl::UpdateMetrics() {
  metrics_->Update(pool_->Stats(), peers_->Stats());
  synced_->Set(publisher_ == nullptr ? 0 : publisher_->synced());
  metrics_timer_ = loop_.PostAfter(kMetricsInterval, [this] { UpdateMetrics(); });
}

absl::Status PoolNodeImpl::Ready() const {
  MutexLock lock(mutex_);
  return ready_;
}

void PoolNodeImpl::SetReady(absl::Status status) {
  MutexLock lock(mutex_);
  ready_ = std::move(status);
}

void PoolNodeImpl::Drain() {
  if (std::exchange(drained_, true)) return;
  SetReady(absl::UnavailableError("draining"));
  if (rpc_ != nullptr) rpc_->SetServing(false);
  RunOnLoop([this] {
    draining_ = true;
    if (publisher_ != nullptr) publisher_->TellLoad();
  });
}

void PoolNodeImpl::Leave() {
  std::promise<void> left;
  RunOnLoop([&] {
    if (publisher_ == nullptr) return left.set_value();
    publisher_->Leave(kLeaveGrace, [&] { left.set_value(); });
  });
  left.get_future().get();
}

void PoolNodeImpl::Shutdown(absl::Duration grace) {
  if (std::exchange(shut_down_, true)) return;
  Drain();
  Leave();
  if (rpc_ != nullptr) rpc_->Shutdown(grace);
  WaitForTransfers();
  if (http_ != nullptr) http_->Stop(absl::Milliseconds(200));
  RemoveReadyFile(options_.server.ready_file);
}

void PoolNodeImpl::WaitForTransfers() {
  WaitOnLoop(loop_, kTransferGrace, [this] {
    return pool_->Stats().pulls_in_flight == 0 && peers_->Stats().handshakes == 0 &&
           peers_->Stats().stagings == 0;
  });
}

PoolNodeImpl::~PoolNodeImpl() {
  if (pool_ != nullptr) Shutdown(absl::ZeroDuration());
  RunOnLoop([this] {
    loop_.CancelTimer(metrics_timer_);
    publisher_.reset();
    pool_.reset();
    peers_.reset();
  });
  for (auto& loop : connect_loops_) loop.reset();
  transport_.reset();
  loop_.Stop();
}

}  // namespace

absl::StatusOr<std::unique_ptr<PoolNode>> PoolNode::Create(PoolNodeOptions options) {
  return PoolNodeImpl::Create(std::move(options));
}

void PoolNode::RunOnLoop(const std::function<void()>& task) { tarn::RunOnLoop(*loop(), task); }

}  // namespace tarn::kvstore
