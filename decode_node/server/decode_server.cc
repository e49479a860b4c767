#include "decode_node/server/decode_server.h"

#include <glog/logging.h>

#include <functional>
#include <future>
#include <utility>

#include "common/base/status.h"
#include "engine/factory/model_factory.h"

namespace tarn::decode {
namespace {

constexpr absl::Duration kIdlePoll = absl::Milliseconds(5);
// For the last messages to go out.
constexpr absl::Duration kStreamGrace = absl::Milliseconds(500);

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeServer>> DecodeServer::Start(const DecodeConfig& config) {
  std::unique_ptr<DecodeServer> server(new DecodeServer(config));
  RETURN_IF_ERROR(server->Build(config));
  return server;
}

absl::Status DecodeServer::Build(const DecodeConfig& config) {
  ASSIGN_OR_RETURN(const auto model, engine::OpenModel(config.model));
  ASSIGN_OR_RETURN(kvstore::PoolNodeOptions options, PoolOptionsFrom(config, *model));
  const int pages = options.hbm_pages;
  ASSIGN_OR_RETURN(node_, kvstore::PoolNode::Create(std::move(options)));
  ASSIGN_OR_RETURN(executor_, model->MakeExecutor({node_->pool()->arena(), pages}));
  runner_ = engine::MakeThreadStepRunner(executor_.get(), node_->loop());
  metrics_ = std::make_unique<DecodeMetrics>(node_->registry());
  node_->RunOnLoop([&] {
    sessions_ = std::make_unique<DecodeSessions>(config.sessions, node_->loop(), node_->pool(),
                                                 runner_.get(), executor_->model(), metrics_.get());
  });
  service_ = std::make_unique<DecodeService>(node_->loop(), sessions_.get());
  LOG(INFO) << "Serving " << executor_->model().name << " on " << executor_->model().device;
  return node_->Start({service_.get()}, [this] {
    // The directories may ask until the very end.
    return sessions_ == nullptr ? v1::NodeLoad() : sessions_->Load();
  });
}

void DecodeServer::WaitUntilIdle() {
  std::promise<void> idle;
  EventLoop* const loop = node_->loop();
  const absl::Time limit = loop->Now() + grace_;
  const std::function<void()> look = [&] {
    if (sessions_->idle() || loop->Now() >= limit) return idle.set_value();
    loop->PostAfter(kIdlePoll, look);
  };
  loop->Post(look);
  idle.get_future().get();
}

void DecodeServer::Stop() {
  if (std::exchange(stopped_, true) || sessions_ == nullptr) return;
  node_->RunOnLoop([this] { sessions_->Drain(); });
  node_->Drain();
  WaitUntilIdle();
  node_->RunOnLoop(
      [this] { sessions_->FailAll(absl::UnavailableError("the decode node is shutting down")); });
  node_->Shutdown(kStreamGrace);
  runner_->Stop();
}

DecodeServer::~DecodeServer() {
  Stop();
  if (node_ != nullptr) node_->RunOnLoop([this] { sessions_.reset(); });
  // Its threads may still have a stream of the service, or a page of the executor's, in hand.
  runner_.reset();
  executor_.reset();
  node_.reset();
}

}  // namespace tarn::decode
