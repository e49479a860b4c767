#include "router/session/fake_gateway.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace tarn::router {

class FakeGateway::FakeGeneration : public Generation {
 public:
  FakeGeneration(EventLoop* loop, std::shared_ptr<State> state, const Options& options,
                 GenerationRequest request, std::vector<TokenId> script,
                 std::optional<Failure> failure, GenerationSink* sink)
      : loop_(loop),
        state_(std::move(state)),
        options_(options),
        request_(std::move(request)),
        script_(std::move(script)),
        failure_(std::move(failure)),
        sink_(sink) {
    ++state_->running;
    const bool fails_first = failure_.has_value() && failure_->after_tokens == 0;
    Schedule(fails_first ? absl::ZeroDuration() : options_.first_token_after);
  }

  ~FakeGeneration() override {
    *alive_ = false;
    loop_->CancelTimer(timer_);
    if (ended_) return;
    --state_->running;
    ++state_->cancelled;
  }

  GenerationReport Report() const override {
    GenerationReport report;
    report.prompt_tokens = static_cast<int>(request_.prompt.size());
    report.local_hbm = std::min(options_.cached_tokens, report.prompt_tokens);
    report.computed = report.prompt_tokens - report.local_hbm;
    report.time_to_first_token = report.compute = options_.first_token_after;
    report.predicted_time_to_first_token = options_.first_token_after;
    report.total = loop_->Now() - request_.received;
    report.prefill_node = "fake-prefill";
    report.decode_node = "fake-decode";
    return report;
  }

 private:
  void Schedule(absl::Duration delay) {
    timer_ = loop_->PostAfter(delay, [this] { Advance(); });
  }

  void Advance() {
    if (!state_->gateway_alive) return;
    if (failure_.has_value() && sent_ >= failure_->after_tokens) return Fail();
    const std::vector<engine::SampledToken> tokens = NextTokens();
    const std::shared_ptr<bool> alive = alive_;
    if (!tokens.empty()) sink_->OnTokens(tokens);
    if (!*alive) return;
    if (reason_.has_value()) return Finish();
    Schedule(options_.token_interval);
  }

  std::vector<engine::SampledToken> NextTokens() {
    std::vector<engine::SampledToken> tokens;
    const int wanted = sent_ == 0 ? 1 : options_.tokens_at_once;
    while (static_cast<int>(tokens.size()) < wanted && !reason_.has_value()) {
      if (failure_.has_value() && sent_ >= failure_->after_tokens) break;
      tokens.push_back(TokenAt(sent_++));
      const TokenId last = tokens.back().token;
      const auto& ends = request_.end_tokens;
      if (std::find(ends.begin(), ends.end(), last) != ends.end()) {
        reason_ = FinishReason::kStop;
      } else if (sent_ >= request_.max_new_tokens) {
        reason_ = FinishReason::kLength;
      }
    }
    return tokens;
  }

  engine::SampledToken TokenAt(int index) const {
    engine::SampledToken token;
    token.token =
        index < static_cast<int>(script_.size()) ? script_[index] : DefaultToken(request_, index);
    if (request_.sampling.logprobs < 0) return token;
    token.logprob = -0.5f;
    for (int i = 0; i < request_.sampling.logprobs; ++i) {
      token.top_logprobs.push_back({.token = token.token + i, .logprob = -0.5f - i});
    }
    return token;
  }

  void Finish() {
    ended_ = true;
    --state_->running;
    ++state_->finished;
    const GenerationReport report = Report();
    sink_->OnFinished(*reason_, report);
  }

  void Fail() {
    ended_ = true;
    --state_->running;
    ++state_->failed;
    const Failure failure = *failure_;  // the sink may destroy this object
    sink_->OnFailed(failure.status, failure.retry_after);
  }

  EventLoop* const loop_;
  const std::shared_ptr<State> state_;
  const Options options_;
  const GenerationRequest request_;
  const std::vector<TokenId> script_;
  const std::optional<Failure> failure_;
  GenerationSink* const sink_;

  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  TimerId timer_ = 0;
  int sent_ = 0;
  std::optional<FinishReason> reason_;
  bool ended_ = false;
};

FakeGateway::FakeGateway(EventLoop* loop, const Options& options)
    : loop_(loop), options_(options) {}

FakeGateway::~FakeGateway() { state_->gateway_alive = false; }

std::unique_ptr<Generation> FakeGateway::Start(GenerationRequest request, GenerationSink* sink) {
  state_->requests.push_back(request);
  std::vector<TokenId> script;
  if (script_) script = script_(request);
  std::optional<Failure> failure;
  if (!failures_.empty()) {
    failure = std::move(failures_.front());
    failures_.pop_front();
  }
  return std::make_unique<FakeGeneration>(loop_, state_, options_, std::move(request),
                                          std::move(script), std::move(failure), sink);
}

TokenId FakeGateway::DefaultToken(const GenerationRequest& request, int index) {
  uint64_t sum = request.sampling.seed + static_cast<uint64_t>(index);
  for (TokenId token : request.prompt) sum += static_cast<uint64_t>(token);
  return static_cast<TokenId>(sum % 256);
}

}  // namespace tarn::router
