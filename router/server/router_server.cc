#include "router/server/router_server.h"

#include <glog/logging.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/http/server.h"
#include "common/http/status_pages.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "engine/request/text_model.h"
#include "kvstore/directory/subscriber.h"
#include "router/dashboard/dashboard.h"
#include "router/frontend/frontend.h"
#include "router/server/router_flags.h"
#include "router/session/cluster.h"

namespace tarn::router {
namespace {

// The last word of Cluster::Ready, for threads that are not the loop.
class ReadyBoard {
 public:
  void Set(const absl::Status& status) {
    MutexLock lock(mutex_);
    status_ = status;
  }
  absl::Status Get() const {
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("no directory heard yet");
};

class RouterServerImpl : public RouterServer {
 public:
  explicit RouterServerImpl(const RouterConfig& config)
      : config_(config), metrics_(registry_), pages_(OpenAiErrorBody), loop_("router") {}
  ~RouterServerImpl() override { Stop(); }

  absl::Status Begin() {
    ASSIGN_OR_RETURN(classes_, ParseServiceClasses(config_.service_classes));
    ASSIGN_OR_RETURN(queue_options_.weights, ParseTenantWeights(config_.tenant_weights));
    queue_options_.max_requests = config_.max_queue;
    queue_options_.max_requests_per_tenant = config_.max_queue_per_tenant;
    ASSIGN_OR_RETURN(engine::TextModel model,
                     engine::TextModel::Load(config_.model_dir, config_.served_model_name));
    RunOnLoop(loop_, [this] { BuildCluster(); });
    BuildFrontend(std::move(model));
    HttpServerOptions http = {.listen = config_.server.http_listen.ToString(),
                              .error_body = OpenAiErrorBody};
    ASSIGN_OR_RETURN(http_,
                     HttpServer::Start(std::move(http), [this](auto request, auto responder) {
                       pages_.Route(std::move(request), std::move(responder));
                     }));
    ASSIGN_OR_RETURN(rpc_, RpcServer::Start({.listen = config_.server.listen.ToString()},
                                            {frontend_->service()}));
    RunOnLoop(loop_, [this] {
      bound_ = true;
      ShowReady(cluster_->Ready());
    });
    return absl::OkStatus();
  }

  std::string rpc_address() const override { return rpc_->address(); }
  std::string http_address() const override { return http_->address(); }

  void Shutdown() override {
    RunOnLoop(loop_, [this] { cluster_->Drain(); });
    // The frontend's calls last until the clients have everything.
    const auto idle = [this] { return frontend_->active() == 0; };
    if (!WaitOnLoop(loop_, config_.drain_timeout, idle)) {
      LOG(WARNING) << "requests were still under way after "
                   << absl::FormatDuration(config_.drain_timeout) << ": cut";
    }
    Stop();
  }

 private:
  void BuildCluster() {
    Random random = Random::FromEntropy();
    ClusterOptions options;
    options.router_id = config_.router_id.empty()
                            ? absl::StrCat("router-", absl::Hex(random.Next() >> 40))
                            : config_.router_id;
    options.max_in_flight = config_.max_in_flight;
    options.requests.limits.max_attempts = config_.max_attempts;
    options.requests.handover_timeout = config_.handover_timeout;
    options.requests.max_node_queue = config_.max_node_queue;
    options.queue = queue_options_;
    streams_ = MakeGrpcNodeStreams(&loop_);
    ClusterParts parts;
    parts.loop = &loop_;
    parts.streams = streams_.get();
    parts.metrics = &metrics_;
    parts.index = [this]() -> const kvstore::BlockIndex& {
      return subscriber_ ? subscriber_->index() : no_index_;
    };
    parts.on_ready = [this](const absl::Status& ready) { ShowReady(ready); };
    cluster_ = std::make_unique<Cluster>(options, std::move(parts), std::move(random));
    kvstore::ClusterListener listener;
    listener.on_joined = [this](const kvstore::ClusterNode& node) { cluster_->Joined(node.info); };
    listener.on_left = [this](const NodeId& node, Incarnation incarnation) {
      cluster_->Left(node, incarnation);
    };
    listener.on_load = [this](const kvstore::ClusterNode& node) {
      cluster_->Reported(NodeId(node.info.node_id()), node.load);
    };
    subscriber_ = kvstore::DirectorySubscriber::Start(
        {.directories = config_.directories, .index = {.max_bytes = config_.index_bytes}}, &loop_,
        std::move(listener));
    ShowIndex();
  }

  void ShowIndex() {
    const kvstore::BlockIndexStats stats = subscriber_->index().Stats();
    metrics_.index_blocks.Set(static_cast<double>(stats.blocks));
    metrics_.index_places.Set(static_cast<double>(stats.places));
    metrics_.index_bytes.Set(static_cast<double>(stats.bytes));
    // A new state has an index of its own, which begins at 0.
    if (stats.refused > shown_refused_) metrics_.index_refused.Add(stats.refused - shown_refused_);
    shown_refused_ = stats.refused;
    index_timer_ = loop_.PostAfter(absl::Milliseconds(200), [this] { ShowIndex(); });
  }

  void BuildFrontend(engine::TextModel model) {
    const auto status = [this] { return cluster_->Status(); };
    frontend_ = std::make_unique<Frontend>(
        FrontendOptions{.classes = classes_},
        FrontendParts{
            .loop = &loop_,
            .gateway = cluster_.get(),
            .model = std::make_shared<engine::TextModel>(std::move(model)),
            .status = status,
            .explain =
                [this](const GenerationRequest& request) { return cluster_->Explain(request); },
            .registry = &registry_,
            .random = Random::FromEntropy()});
    frontend_->AddRoutes(pages_);
    AddDashboard(
        pages_,
        {.loop = &loop_, .status = status, .time_to_first_token = &metrics_.time_to_first_token});
    AddStatusPages(pages_, registry_, [this] { return ready_.Get(); });
  }

  void ShowReady(const absl::Status& ready) {
    ready_.Set(ready);
    if (!bound_) return;
    rpc_->SetServing(ready.ok());
    if (ready.ok() && !std::exchange(announced_, true)) Announce();
  }

  // Whoever waits for the file wants to send requests: it comes when both roles are there.
  void Announce() {
    const absl::Status written = WriteReadyFile(
        config_.server.ready_file, {{"grpc", rpc_->address()}, {"http", http_->address()}});
    LOG_IF(ERROR, !written.ok()) << "--ready-file: " << Message(written);
    LOG(INFO) << "ready";
  }

  // Servers first: their calls need the loop, and may use the cluster until they end.
  void Stop() {
    if (std::exchange(stopped_, true)) return;
    RemoveReadyFile(config_.server.ready_file);
    // Time for the last chunks of finished answers to leave.
    if (http_) http_->Stop(absl::Seconds(1));
    if (rpc_) rpc_->Shutdown(absl::Seconds(1));
    RunOnLoop(loop_, [this] {
      loop_.CancelTimer(index_timer_);
      frontend_.reset();
      subscriber_.reset();
      cluster_.reset();
    });
    loop_.Stop();
  }

  const RouterConfig config_;
  std::map<std::string, Slo> classes_;
  FairQueueOptions queue_options_;
  metrics::Registry registry_;
  RouterMetrics metrics_;
  ReadyBoard ready_;
  HttpRouter pages_;
  RealEventLoop loop_;
  bool stopped_ = false;

  // Loop-only.
  bool bound_ = false;      // both servers listen
  bool announced_ = false;  // the ready file is written
  const kvstore::BlockIndex no_index_;
  uint64_t shown_refused_ = 0;
  TimerId index_timer_ = 0;
  std::unique_ptr<NodeStreams> streams_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<kvstore::DirectorySubscriber> subscriber_;
  std::unique_ptr<Frontend> frontend_;

  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RouterServer>> RouterServer::Start(const RouterConfig& config) {
  if (config.directories.empty()) {
    return absl::InvalidArgumentError("--directory: give host:port of one directory at least");
  }
  auto server = std::make_unique<RouterServerImpl>(config);
  RETURN_IF_ERROR(server->Begin());
  return server;
}

}  // namespace tarn::router
