#include "common/transport/tcp/tcp_engine.h"

#include <utility>

#include "common/base/status.h"
#include "common/runtime/random.h"

namespace tarn {

absl::StatusOr<std::shared_ptr<TcpEngine>> TcpEngine::Create(const TcpOptions& options) {
  std::shared_ptr<TcpEngine> engine(new TcpEngine);
  TcpAddress& address = engine->address_;
  address.host = options.advertise_host.empty() ? options.listen_host : options.advertise_host;
  for (uint64_t& word : address.token) word = Random::FromEntropy().Next();
  ASSIGN_OR_RETURN(engine->server_, TcpServer::Start(options, address.token, *engine->regions_));
  address.port = engine->server_->port();
  MutexLock lock(engine->mutex_);
  engine->thread_ = std::make_unique<TcpThread>("tarn-tcp-read");
  engine->reader_ = std::make_unique<TcpReader>(options, *engine->thread_, *engine->regions_);
  engine->thread_->Post([thread = engine->thread_.get(), reader = engine->reader_.get()] {
    thread->EveryTick([reader] { reader->Tick(); });
  });
  return engine;
}

TcpEngine::~TcpEngine() { Stop(); }

void TcpEngine::Stop() {
  std::unique_ptr<TcpThread> thread;
  {
    MutexLock lock(mutex_);
    thread = std::move(thread_);
  }
  if (thread == nullptr) return;
  regions_->Close();
  server_.reset();
  thread->PostAndWait(
      [this] { reader_->EndAll(absl::UnavailableError("the transport is closed")); });
  thread.reset();
  reader_.reset();
}

void TcpEngine::Post(std::function<void(TcpReader&)> command) {
  MutexLock lock(mutex_);
  if (thread_ == nullptr) return;
  thread_->Post([this, command = std::move(command)] { command(*reader_); });
}

}  // namespace tarn
