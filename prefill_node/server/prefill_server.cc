#include "prefill_node/server/prefill_server.h"

#include <glog/logging.h>

#include <thread>
#include <utility>

#include "common/base/status.h"
#include "common/runtime/post_and_wait.h"
#include "engine/factory/model_factory.h"

namespace tarn::prefill {
namespace {

// For whoever takes over what was given up: to pull what this node has of it, not compute it again.
constexpr absl::Duration kPullGrace = absl::Seconds(1);
// For the last messages to go out.
constexpr absl::Duration kStreamGrace = absl::Milliseconds(500);

}  // namespace

absl::StatusOr<std::unique_ptr<PrefillServer>> PrefillServer::Start(const PrefillConfig& config) {
  std::unique_ptr<PrefillServer> server(new PrefillServer(config));
  RETURN_IF_ERROR(server->Build(config));
  return server;
}

absl::Status PrefillServer::Build(const PrefillConfig& config) {
  ASSIGN_OR_RETURN(const auto model, engine::OpenModel(config.model));
  ASSIGN_OR_RETURN(kvstore::PoolNodeOptions options, PoolOptionsFrom(config, *model));
  const int pages = options.hbm_pages;
  ASSIGN_OR_RETURN(node_, kvstore::PoolNode::Create(std::move(options)));
  ASSIGN_OR_RETURN(executor_, model->MakeExecutor({node_->pool()->arena(), pages}));
  runner_ = engine::MakeThreadStepRunner(executor_.get(), node_->loop());
  metrics_ = std::make_unique<PrefillMetrics>(node_->registry());
  node_->RunOnLoop([&] {
    sessions_ = std::make_unique<PrefillSessions>(config.sessions, node_->loop(), node_->pool(),
                                                  runner_.get(), executor_->model(), &node_->info(),
                                                  metrics_.get());
  });
  service_ = std::make_unique<PrefillService>(node_->loop(), sessions_.get());
  LOG(INFO) << "Serving " << executor_->model().name << " on " << executor_->model().device;
  return node_->Start({service_.get()}, [this] {
    // The directories may ask until the very end.
    return sessions_ == nullptr ? v1::NodeLoad() : sessions_->Load();
  });
}

void PrefillServer::Stop() {
  if (std::exchange(stopped_, true) || sessions_ == nullptr) return;
  node_->RunOnLoop([this] { sessions_->Drain(); });
  node_->Drain();
  if (!WaitOnLoop(*node_->loop(), drain_timeout_, [this] { return sessions_->idle(); })) GiveUp();
  node_->Shutdown(kStreamGrace);
  runner_->Stop();
}

void PrefillServer::GiveUp() {
  LOG(WARNING) << "Requests are still under way after " << drain_timeout_ << ": given up";
  node_->RunOnLoop(
      [this] { sessions_->FailAll(absl::UnavailableError("the prefill node is shutting down")); });
  std::this_thread::sleep_for(absl::ToChronoMilliseconds(kPullGrace));
}

PrefillServer::~PrefillServer() {
  Stop();
  if (node_ != nullptr) node_->RunOnLoop([this] { sessions_.reset(); });
  // Its threads may still have a stream of the service, or a page of the executor's, in hand.
  runner_.reset();
  executor_.reset();
  node_.reset();
}

}  // namespace tarn::prefill
