#pragma once

// A Gateway without a cluster: answers tokens that a script gives, at a pace that the test sets,
// and remembers what it was asked. For tests of frontends.
//
// Loop-only, like the real one. The gateway may go before its Generations: those then stay silent.

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/runtime/event_loop.h"
#include "router/session/gateway.h"

namespace tarn::router {

class FakeGateway : public Gateway {
 public:
  struct Options {
    absl::Duration first_token_after = absl::Milliseconds(10);
    absl::Duration token_interval = absl::Milliseconds(1);
    int tokens_at_once = 1;  // in one OnTokens, after the first token
    int cached_tokens = 0;   // of each prompt, reported as local_hbm
  };
  struct Failure {
    absl::Status status;
    absl::Duration retry_after;
    int after_tokens = 0;  // how many come before it
  };
  // The answer of a request, of any length; it ends at max_new_tokens or its first end token. An
  // answer that runs out before either is continued by the default rule.
  using Script = std::function<std::vector<TokenId>(const GenerationRequest&)>;

  // `loop` outlives the gateway and all it started.
  FakeGateway(EventLoop* loop, const Options& options);
  explicit FakeGateway(EventLoop* loop) : FakeGateway(loop, Options()) {}
  ~FakeGateway() override;

  std::unique_ptr<Generation> Start(GenerationRequest request, GenerationSink* sink) override;
  absl::Status Ready() const override { return ready_; }

  void SetOptions(const Options& options) { options_ = options; }
  void SetReady(absl::Status ready) { ready_ = std::move(ready); }
  void SetScript(Script script) { script_ = std::move(script); }
  // The next request that starts and has no failure yet ends this way; in order of the calls.
  void FailNext(Failure failure) { failures_.push_back(std::move(failure)); }

  // The default answer: token i of a prompt is (sum of the prompt's ids + seed + i) modulo 256.
  static TokenId DefaultToken(const GenerationRequest& request, int index);

  // All requests so far, in order.
  const std::vector<GenerationRequest>& requests() const { return state_->requests; }
  int running() const { return state_->running; }
  int finished() const { return state_->finished; }
  int failed() const { return state_->failed; }
  int cancelled() const { return state_->cancelled; }  // destroyed before their end

 private:
  class FakeGeneration;
  // Shared with the Generations, which may live longer.
  struct State {
    bool gateway_alive = true;
    std::vector<GenerationRequest> requests;
    int running = 0, finished = 0, failed = 0, cancelled = 0;
  };

  EventLoop* const loop_;
  Options options_;
  absl::Status ready_;
  Script script_;
  std::deque<Failure> failures_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace tarn::router
