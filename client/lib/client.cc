#include "client/lib/client.h"

#include <chrono>
#include <future>
#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/release.h"
#include "common/rpc/status.h"

namespace tarn::client {
namespace {

constexpr absl::Duration kUnaryTimeout = absl::Seconds(30);

// Owns itself from StartCall to OnDone; users hold the Call beside it.
class Reader : public grpc::ClientReadReactor<v1::GenerateResponse>, public Client::Call {
 public:
  Reader(Client::OnChunk chunk, Client::OnDone done)
      : chunk_(std::move(chunk)), done_(std::move(done)) {}

  grpc::ClientContext& context() { return context_; }

  void Begin(std::shared_ptr<Reader> self) {
    self_ = std::move(self);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() override { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!hung_up_ && !chunk_(response_)) {
      hung_up_ = true;
      context_.TryCancel();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    // First let go of the channel: whoever hears of the end may destroy the Client, and the
    // process.
    ReleaseOffGrpcThreads(
        std::move(self_),
        [done = std::move(done_), status = FromGrpcStatus(status, context_)] { done(status); });
  }

 private:
  Client::OnChunk chunk_;
  Client::OnDone done_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  bool hung_up_ = false;
  std::shared_ptr<Reader> self_;
};

}  // namespace

struct Client::Impl {
  explicit Impl(const std::string& server) : stub(v1::Inference::NewStub(MakeChannel(server))) {}

  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Unary(Method method, const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kUnaryTimeout));
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status, context);
    return response;
  }

  std::unique_ptr<v1::Inference::Stub> stub;
};

Client::Client(const std::string& server) : impl_(std::make_unique<Impl>(server)) {}
Client::~Client() = default;

std::shared_ptr<Client::Call> Client::Start(const v1::GenerateRequest& request, OnChunk chunk,
                                            OnDone done) {
  auto reader = std::make_shared<Reader>(std::move(chunk), std::move(done));
  impl_->stub->async()->Generate(&reader->context(), &request, reader.get());
  reader->Begin(reader);
  return reader;
}

std::shared_ptr<Client::Call> Client::Start(const v1::ChatRequest& request, OnChunk chunk,
                                            OnDone done) {
  auto reader = std::make_shared<Reader>(std::move(chunk), std::move(done));
  impl_->stub->async()->Chat(&reader->context(), &request, reader.get());
  reader->Begin(reader);
  return reader;
}

namespace {

template <typename Request>
absl::Status RunToEnd(Client& client, const Request& request, Client::OnChunk chunk) {
  auto ended = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> result = ended->get_future();
  client.Start(request, std::move(chunk),
               [ended](const absl::Status& status) { ended->set_value(status); });
  return result.get();
}

}  // namespace

absl::Status Client::Generate(const v1::GenerateRequest& request, OnChunk chunk) {
  return RunToEnd(*this, request, std::move(chunk));
}

absl::Status Client::Chat(const v1::ChatRequest& request, OnChunk chunk) {
  return RunToEnd(*this, request, std::move(chunk));
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request) {
  return impl_->Unary<v1::TokenizeResponse>(&v1::Inference::Stub::Tokenize, request);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels() {
  return impl_->Unary<v1::ListModelsResponse>(&v1::Inference::Stub::ListModels,
                                              v1::ListModelsRequest());
}

absl::StatusOr<v1::GetStatusResponse> Client::GetStatus() {
  return impl_->Unary<v1::GetStatusResponse>(&v1::Inference::Stub::GetStatus,
                                             v1::GetStatusRequest());
}

absl::StatusOr<v1::ExplainResponse> Client::Explain(const v1::GenerateRequest& request) {
  return impl_->Unary<v1::ExplainResponse>(&v1::Inference::Stub::Explain, request);
}

}  // namespace tarn::client
