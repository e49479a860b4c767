#pragma once

// The C++ client of a tarn router.
//
// Thread-safe: one Client serves any number of threads and calls. Start does not block; the other
// calls block until the router answered or the call's deadline passed.
//
//   Client client("127.0.0.1:9000");
//   v1::GenerateRequest request;
//   request.set_text("Once upon a time");
//   absl::Status status = client.Generate(request, [](const v1::GenerateResponse& chunk) {
//     std::cout << chunk.text() << std::flush;
//     return true;  // false hangs up
//   });

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/inference.grpc.pb.h"

namespace tarn::client {

class Client {
 public:
  // Called for each message of the answer, one at a time. False hangs up: the call ends CANCELLED.
  using OnChunk = std::function<bool(const v1::GenerateResponse&)>;
  using OnDone = std::function<void(const absl::Status&)>;

  // A call under way. Destroying it does not end it; Cancel asks for that.
  class Call {
   public:
    virtual ~Call() = default;
    virtual void Cancel() = 0;
  };

  // `server`: host:port of a router's gRPC. Connects with the first call.
  explicit Client(const std::string& server);
  ~Client();

  // `chunk` runs on threads of gRPC; then `done` once, on a thread of the process's own.
  // RESOURCE_EXHAUSTED may carry RetryAfter.
  std::shared_ptr<Call> Start(const v1::GenerateRequest& request, OnChunk chunk, OnDone done);
  std::shared_ptr<Call> Start(const v1::ChatRequest& request, OnChunk chunk, OnDone done);

  absl::Status Generate(const v1::GenerateRequest& request, OnChunk chunk);
  absl::Status Chat(const v1::ChatRequest& request, OnChunk chunk);

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels();
  absl::StatusOr<v1::GetStatusResponse> GetStatus();
  // What the router would decide for this request now.
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::GenerateRequest& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tarn::client
