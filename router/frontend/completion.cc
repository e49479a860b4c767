#include "router/frontend/completion.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/status.h"
#include "engine/request/answer_text.h"

namespace tarn::router {

class Completion::Choice : public GenerationSink {
 public:
  Choice(Completion* owner, int index, std::optional<engine::AnswerText> text)
      : owner_(owner), index_(index), text_(std::move(text)) {}

  void Start(Gateway* gateway, GenerationRequest request) {
    generation_ = gateway->Start(std::move(request), this);
  }
  void Cancel() { generation_.reset(); }

  int token_count() const { return token_count_; }
  const GenerationReport& report() const { return report_; }

  void OnTokens(std::span<const engine::SampledToken> tokens) override {
    for (const engine::SampledToken& token : tokens) {
      ++token_count_;
      chunk_.tokens.push_back(token);
      if (!text_.has_value()) continue;
      AppendText(text_->Push(token.token));
      if (text_->stopped()) return Stop();
    }
    if (owner_->request_.stream) Deliver();
  }

  void OnFinished(FinishReason reason, const GenerationReport& report) override {
    report_ = report;
    generation_.reset();
    if (text_.has_value()) {
      AppendText(text_->Flush());
      if (text_->stopped()) reason = FinishReason::kStop;
    }
    chunk_.finish = reason;
    Deliver();
  }

  void OnFailed(const absl::Status& status, absl::Duration retry_after) override {
    // A copy: `status` may be the generation's.
    const absl::Status failure =
        retry_after > absl::ZeroDuration() ? WithRetryAfter(status, retry_after) : status;
    generation_.reset();
    owner_->End(failure);
  }

 private:
  void AppendText(const std::string& text) {
    if (owner_->request_.detokenize) chunk_.text += text;
  }

  // A stop string is complete: the cluster does not know of them, so the rest is cancelled.
  void Stop() {
    report_ = generation_->Report();
    generation_.reset();
    chunk_.finish = FinishReason::kStop;
    Deliver();
  }

  void Deliver() {
    CompletionChunk chunk = std::exchange(chunk_, {});
    chunk.choice = index_;
    owner_->Deliver(std::move(chunk));
  }

  Completion* const owner_;
  const int index_;
  std::optional<engine::AnswerText> text_;  // none: nobody looks at the text
  std::unique_ptr<Generation> generation_;
  CompletionChunk chunk_;  // not delivered yet
  int token_count_ = 0;
  GenerationReport report_;
};

Completion::Completion(EventLoop* loop, std::shared_ptr<const engine::TextModel> model,
                       CompletionRequest request, CompletionListener* listener)
    : loop_(loop), model_(std::move(model)), request_(std::move(request)), listener_(listener) {}

Completion::~Completion() {
  *alive_ = false;
  loop_->CancelTimer(deadline_);
}

absl::StatusOr<std::unique_ptr<Completion>> Completion::Start(
    EventLoop* loop, Gateway* gateway, std::shared_ptr<const engine::TextModel> model,
    CompletionRequest request, CompletionListener* listener) {
  std::unique_ptr<Completion> completion(
      new Completion(loop, std::move(model), std::move(request), listener));
  const CompletionRequest& asked = completion->request_;
  for (int i = 0; i < asked.choice_count(); ++i) {
    const engine::ResolvedRequest& prompt = asked.prompts[i / asked.choices_per_prompt];
    std::optional<engine::AnswerText> text;
    if (asked.detokenize || !prompt.stop.empty()) {
      ASSIGN_OR_RETURN(engine::AnswerText answer,
                       engine::AnswerText::Create(prompt, *completion->model_->tokenizer));
      text.emplace(std::move(answer));
    }
    completion->choices_.push_back(std::make_unique<Choice>(completion.get(), i, std::move(text)));
  }
  completion->Begin(gateway);
  return completion;
}

void Completion::Begin(Gateway* gateway) {
  running_ = request_.choice_count();
  deadline_ = loop_->PostAt(request_.deadline, [this] {
    End(absl::DeadlineExceededError(
        absl::StrCat("the request's time of ",
                     absl::FormatDuration(request_.deadline - request_.received), " is over")));
  });
  for (int i = 0; i < request_.choice_count(); ++i)
    choices_[i]->Start(gateway, RequestOfChoice(request_, i));
}

GenerationRequest RequestOfChoice(const CompletionRequest& asked, int choice) {
  const engine::ResolvedRequest& prompt = asked.prompts[choice / asked.choices_per_prompt];
  GenerationRequest request;
  request.prompt = prompt.prompt;
  request.sampling = prompt.sampling;
  request.sampling.seed += static_cast<uint64_t>(choice % asked.choices_per_prompt);
  request.end_tokens = prompt.end_tokens;
  request.max_new_tokens = prompt.max_new_tokens;
  request.salt = SaltFor(asked.tenant, asked.cache_salt);
  request.tenant = asked.tenant;
  request.priority = asked.priority;
  request.slo = asked.slo;
  request.received = asked.received;
  request.deadline = asked.deadline;
  return request;
}

void Completion::Deliver(CompletionChunk chunk) {
  const std::shared_ptr<bool> alive = alive_;
  const bool ends = chunk.finish.has_value();
  if (ends) --running_;
  listener_->OnChunk(std::move(chunk));
  if (*alive && ends && running_ == 0) End(absl::OkStatus());
}

void Completion::End(const absl::Status& status) {
  loop_->CancelTimer(deadline_);
  for (const auto& choice : choices_) choice->Cancel();
  listener_->OnEnd(status, Usage());
}

CompletionUsage Completion::Usage() const {
  CompletionUsage usage;
  usage.tokenize = request_.tokenize;
  usage.first = choices_.front()->report();
  for (int i = 0; i < request_.choice_count(); ++i) {
    usage.completion_tokens += choices_[i]->token_count();
    if (i % request_.choices_per_prompt != 0) continue;
    usage.prompt_tokens +=
        static_cast<int>(request_.prompts[i / request_.choices_per_prompt].prompt.size());
    usage.cached_tokens += choices_[i]->report().cached_tokens();
  }
  return usage;
}

}  // namespace tarn::router
